//! Who sends a request: client certificate, service-account token, or anonymous.

use berth_api::{
    meta,
    status::{self, Status},
};
use http::{HeaderMap, header};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    registry::{ObjectRef, Registry, core},
    token::{Bound, Claims, ISSUER, Tokens},
};

/// Group of everyone who proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";

/// An authenticated (or anonymous) user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Stable id; empty where the source has none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further facts, by key.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    /// Whether the user is in `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|member| member == group)
    }

    /// `userInfo` as in reviews.
    pub fn to_value(&self) -> Value {
        let mut info = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        for (key, values) in &self.extra {
            info["extra"][key] = values.clone().into();
        }
        info
    }
}

/// The user of a verified client certificate: common name and organizations (stock
/// `--client-ca-file`).
pub fn of_certificate(certificate: &CertificateDer) -> Option<User> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    let organizations = parsed.subject().iter_organization();
    let mut groups: Vec<String> = organizations
        .filter_map(|value| value.as_str().ok())
        .map(str::to_owned)
        .collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(User {
        name: name.to_owned(),
        groups,
        ..User::default()
    })
}

/// Decides who sends a request. `certificate` is the user of the connection.
pub async fn authenticate(
    headers: &HeaderMap,
    certificate: Option<&User>,
    tokens: &Tokens,
    registry: &Registry,
) -> Result<User, Status> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let Some(credentials) = headers.get(header::AUTHORIZATION) else {
        return Ok(User::anonymous());
    };
    let text = credentials.to_str().map_err(|_| status::unauthorized())?;
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Ok(User::anonymous()),
    };
    let audiences = [ISSUER.to_owned()];
    match review(token, &audiences, tokens, registry).await? {
        Some((user, _)) => Ok(user),
        None => Err(status::unauthorized()),
    }
}

/// The user that an authorized user acts as, from the `Impersonate-*` headers; `None` when
/// there are none.
pub fn impersonated(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(name) = text("impersonate-user") else {
        let others = ["impersonate-group", "impersonate-uid"];
        if others.iter().any(|name| headers.contains_key(*name)) {
            return Err(status::bad_request(
                "requested groups or uid without impersonating a user",
            ));
        }
        return Ok(None);
    };
    let groups = headers.get_all("impersonate-group").iter();
    let mut groups: Vec<String> = groups
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect();
    let account = name.strip_prefix("system:serviceaccount:");
    if let Some((namespace, _)) = account.and_then(|rest| rest.split_once(':'))
        && groups.is_empty()
    {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    if name == "system:anonymous" {
        return Ok(Some(User::anonymous()));
    }
    groups.push(AUTHENTICATED.to_owned());
    Ok(Some(User {
        name: name.to_owned(),
        uid: text("impersonate-uid").unwrap_or_default().to_owned(),
        groups,
        extra: Vec::new(),
    }))
}

/// The user and claims of a service-account token; `None` when it proves nothing (any more).
pub async fn review(
    token: &str,
    audiences: &[String],
    tokens: &Tokens,
    registry: &Registry,
) -> Result<Option<(User, Claims)>, Status> {
    let now = chrono::Utc::now().timestamp();
    let claims = match tokens.verify(token, audiences, now) {
        Ok(claims) => claims,
        Err(error) => {
            tracing::debug!(%error, "a bearer token was refused");
            return Ok(None);
        }
    };
    if !is_still_bound(&claims, registry).await? {
        return Ok(None);
    }
    Ok(Some((user_of(&claims), claims)))
}

/// Whether everything the token is bound to still exists with the same uid.
async fn is_still_bound(claims: &Claims, registry: &Registry) -> Result<bool, Status> {
    let kubernetes = &claims.kubernetes;
    let namespace = kubernetes.namespace.as_str();
    let bounds: [(&str, Option<&Bound>); 3] = [
        ("serviceaccounts", Some(&kubernetes.serviceaccount)),
        ("pods", kubernetes.pod.as_ref()),
        ("secrets", kubernetes.secret.as_ref()),
    ];
    for (plural, bound) in bounds {
        let Some(bound) = bound else { continue };
        let target = ObjectRef {
            resource: core(plural),
            namespace,
            name: &bound.name,
        };
        let Some(entry) = registry.find(&target).await? else {
            return Ok(false);
        };
        let object = crate::object::of_entry(target.resource, &entry);
        if meta::uid(&object) != bound.uid || deletion_is_over(&object) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Stock gives a token 60 s after the deletion time of what it is bound to.
fn deletion_is_over(object: &Value) -> bool {
    let deletion = object["metadata"]["deletionTimestamp"].as_str();
    let deletion = deletion.and_then(meta::parse_time);
    deletion.is_some_and(|at| at + chrono::Duration::seconds(60) < chrono::Utc::now())
}

fn user_of(claims: &Claims) -> User {
    let kubernetes = &claims.kubernetes;
    let namespace = &kubernetes.namespace;
    let mut extra = vec![(
        "authentication.kubernetes.io/credential-id".to_owned(),
        vec![format!("JTI={}", claims.jti)],
    )];
    let bounds = [("node", &kubernetes.node), ("pod", &kubernetes.pod)];
    for (what, bound) in bounds {
        if let Some(bound) = bound {
            let key = |field: &str| format!("authentication.kubernetes.io/{what}-{field}");
            extra.push((key("name"), vec![bound.name.clone()]));
            extra.push((key("uid"), vec![bound.uid.clone()]));
        }
    }
    User {
        name: format!(
            "system:serviceaccount:{namespace}:{}",
            kubernetes.serviceaccount.name
        ),
        uid: kubernetes.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ],
        extra,
    }
}
