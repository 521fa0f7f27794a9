//! `serviceaccounts/token`: issues a token that is bound to the account and, when asked, to
//! a pod or secret (TokenRequest, KEP-1205).

use berth_api::{
    meta, schema,
    status::{self, Status},
    validate::FieldError,
};
use chrono::{Duration, Utc};
use http::Response;
use serde_json::{Value, json};

use super::Call;
use crate::{
    registry::{ObjectRef, core},
    response::{self, Body},
    token::{Bound, Claims, ISSUER, KubernetesClaims},
};

/// Lifetime when none is asked for, seconds.
const DEFAULT_SECONDS: i64 = 3600;
/// Shortest lifetime, seconds.
const MIN_SECONDS: i64 = 600;
/// Longest lifetime, seconds.
const MAX_SECONDS: i64 = 1 << 32;

/// Answers with the request and its status.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let (mut request, warnings) = schema::decode_kind(
        "authentication.k8s.io/v1",
        "TokenRequest",
        &call.body,
        call.content_type(),
        call.field_validation()?,
    )?;
    let account = call.api.registry.get(&call.target()).await?;
    let seconds = request["spec"]["expirationSeconds"].as_i64();
    let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
    check_seconds(call, seconds)?;
    let kubernetes = bind(call, &account, &request["spec"]["boundObjectRef"]).await?;
    let mut audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let now = Utc::now();
    let expires = now + Duration::seconds(seconds);
    let claims = Claims {
        aud: audiences.clone(),
        exp: expires.timestamp(),
        iat: now.timestamp(),
        iss: ISSUER.to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!(
            "system:serviceaccount:{}:{}",
            call.namespace(),
            call.attributes.name
        ),
        kubernetes,
        nbf: now.timestamp(),
    };
    let token = call.api.tokens.sign(&claims);
    let token = token.ok_or_else(|| status::internal("the token could not be signed"))?;
    request["metadata"]["name"] = call.attributes.name.as_str().into();
    request["metadata"]["namespace"] = call.namespace().into();
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({
        "token": token, "expirationTimestamp": meta::timestamp(expires),
    });
    let mut response = response::json(201, &request);
    response::warn(&mut response, &warnings);
    Ok(response)
}

fn check_seconds(call: &Call, seconds: i64) -> Result<(), Status> {
    let why = if seconds < MIN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let error = FieldError::invalid("spec.expirationSeconds", seconds, why);
    Err(status::invalid(
        call.resource,
        &call.attributes.name,
        &[error],
    ))
}

/// The claims about what the token is bound to. A node may only ask for tokens bound to its
/// own pods, running as this account.
async fn bind(call: &Call, account: &Value, wanted: &Value) -> Result<KubernetesClaims, Status> {
    let account_name = call.attributes.name.as_str();
    let mut claims = KubernetesClaims {
        namespace: call.namespace().to_owned(),
        serviceaccount: Bound {
            name: account_name.to_owned(),
            uid: meta::uid(account).to_owned(),
        },
        ..KubernetesClaims::default()
    };
    let kind = wanted["kind"].as_str().unwrap_or_default();
    if call.user.name.starts_with("system:node:") && kind != "Pod" {
        let why = "node requested token not bound to a pod";
        return Err(status::refused(call.resource, account_name, why));
    }
    match kind {
        "" => {}
        "Pod" => bind_pod(call, &mut claims, wanted).await?,
        "Secret" => claims.secret = Some(bound_object(call, "secrets", wanted).await?.0),
        other => {
            return Err(status::bad_request(format!(
                "cannot bind token for serviceaccount \"{account_name}\" to type {}, Kind={other}",
                wanted["apiVersion"].as_str().unwrap_or("v1"),
            )));
        }
    }
    Ok(claims)
}

async fn bind_pod(
    call: &Call,
    claims: &mut KubernetesClaims,
    wanted: &Value,
) -> Result<(), Status> {
    let account_name = call.attributes.name.as_str();
    let (bound, pod) = bound_object(call, "pods", wanted).await?;
    if pod["spec"]["serviceAccountName"] != account_name {
        return Err(status::bad_request(format!(
            "cannot bind token for serviceaccount \"{account_name}\" to pod running with different serviceaccount name."
        )));
    }
    let on = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let asking = call.user.name.strip_prefix("system:node:");
    if asking.is_some_and(|node| node != on) {
        let why = "node requested token bound to a pod scheduled on a different node";
        return Err(status::refused(call.resource, account_name, why));
    }
    claims.node = node_claim(call, on).await?;
    claims.pod = Some(bound);
    Ok(())
}

/// The object of a `boundObjectRef`, which must still be the one that was meant.
async fn bound_object(call: &Call, plural: &str, wanted: &Value) -> Result<(Bound, Value), Status> {
    let name = wanted["name"].as_str().unwrap_or_default();
    let target = ObjectRef {
        resource: core(plural),
        namespace: call.namespace(),
        name,
    };
    let object = call.api.registry.get(&target).await?;
    let uid = wanted["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(status::conflict(target.resource, name, &why));
    }
    let bound = Bound {
        name: name.to_owned(),
        uid: meta::uid(&object).to_owned(),
    };
    Ok((bound, object))
}

async fn node_claim(call: &Call, name: &str) -> Result<Option<Bound>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let target = ObjectRef {
        resource: core("nodes"),
        namespace: "",
        name,
    };
    let entry = call.api.registry.find(&target).await?;
    let uid = entry.map(|entry| crate::object::of_entry(target.resource, &entry));
    Ok(Some(Bound {
        name: name.to_owned(),
        uid: uid
            .map(|node| meta::uid(&node).to_owned())
            .unwrap_or_default(),
    }))
}
