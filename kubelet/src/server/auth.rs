//! Who asks, and whether they may.
//!
//! Everything here is as powerful as root on the node, so there are no grades: the API
//! server's own certificate (which has judged its client before it calls) and members of
//! `system:masters` may do everything, everyone else nothing. A method never matters: the
//! `create` right that exec, attach and port-forward demand is checked where the API
//! server admits its client, and no other way leads here.

use http::StatusCode;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reply::Refusal;

/// Common name of the API server's certificate towards kubelets (kubeadm's).
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// The group of those who may do everything.
const MASTERS: &str = "system:masters";

/// The holder of a verified client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's common name.
    pub user: String,
    /// The certificate's organizations.
    pub groups: Vec<String>,
}

impl Identity {
    /// Of a certificate that the TLS layer has verified; `None` when it does not parse or
    /// names nobody.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Identity> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let subject = parsed.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?;
        let groups = subject.iter_organization();
        let groups = groups.filter_map(|group| group.as_str().ok().map(ToOwned::to_owned));
        (!user.is_empty()).then(|| Identity {
            user: user.to_owned(),
            groups: groups.collect(),
        })
    }
}

/// Lets the API server and `system:masters` pass: 401 for the anonymous, 403 for others.
pub fn authorize(identity: Option<&Identity>) -> Result<(), Refusal> {
    let Some(identity) = identity else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized"));
    };
    if identity.user == API_SERVER || identity.groups.iter().any(|group| group == MASTERS) {
        return Ok(());
    }
    let text = format!(
        "Forbidden (user={}, verb=create, resource=nodes, subresource=proxy)",
        identity.user
    );
    Err(Refusal::new(StatusCode::FORBIDDEN, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_and_masters_pass() {
        let who = |user: &str, groups: &[&str]| Identity {
            user: user.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        };
        for (identity, code) in [
            (None, Some(401)),
            (Some(who(API_SERVER, &["kubeadm:cluster-admins"])), None),
            (Some(who("kubernetes-admin", &["x", MASTERS])), None),
            (Some(who("system:node:n1", &["system:nodes"])), Some(403)),
            (Some(who(MASTERS, &[API_SERVER])), Some(403)),
        ] {
            let got = authorize(identity.as_ref()).err().map(|r| r.code.as_u16());
            assert_eq!(got, code, "{identity:?}");
        }
    }
}
