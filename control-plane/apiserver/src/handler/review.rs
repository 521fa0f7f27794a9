//! Review objects: posted, answered, never stored.

use berth_api::status::{self, Status};
use http::Response;
use serde_json::{Value, json};

use super::Call;
use crate::{
    authn::{self, User},
    authz::{self, Decision},
    request::{Attributes, Query},
    response::{self, Body},
    token::ISSUER,
};

/// Answers a review with its status filled in.
pub async fn answer(call: &Call, mut object: Value) -> Result<Response<Body>, Status> {
    object["status"] = match call.resource.kind {
        "SelfSubjectReview" => json!({ "userInfo": call.user.to_value() }),
        "SelfSubjectAccessReview" => access(call, &call.user, &object["spec"]).await?,
        "SubjectAccessReview" => access(call, &subject(&object["spec"]), &object["spec"]).await?,
        "SelfSubjectRulesReview" => authz::rules(&call.user),
        "TokenReview" => token(call, &object["spec"]).await?,
        _ => return Err(status::path_not_found()),
    };
    Ok(response::json(201, &object))
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// The user that a SubjectAccessReview asks about.
fn subject(spec: &Value) -> User {
    User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: Vec::new(),
    }
}

async fn access(call: &Call, user: &User, spec: &Value) -> Result<Value, Status> {
    let (attributes, query) = attributes_of(spec);
    let registry = &call.api.registry;
    Ok(
        match authz::decide(user, &attributes, &query, registry).await? {
            Decision::Allow => json!({ "allowed": true }),
            Decision::Deny(why) if why.is_empty() => json!({ "allowed": false }),
            Decision::Deny(why) => json!({ "allowed": false, "reason": why }),
        },
    )
}

fn attributes_of(spec: &Value) -> (Attributes, Query) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(path) = spec["nonResourceAttributes"]["path"].as_str() {
        let attributes = Attributes {
            verb: known_verb(&text(&spec["nonResourceAttributes"]["verb"])),
            path: path.to_owned(),
            ..Attributes::default()
        };
        return (attributes, Query::default());
    }
    let asked = &spec["resourceAttributes"];
    let attributes = Attributes {
        verb: known_verb(&text(&asked["verb"])),
        path: String::new(),
        is_resource: true,
        group: text(&asked["group"]),
        version: text(&asked["version"]),
        resource: text(&asked["resource"]),
        subresource: text(&asked["subresource"]),
        namespace: text(&asked["namespace"]),
        name: text(&asked["name"]),
    };
    let selector = asked["fieldSelector"]["rawSelector"].as_str();
    let query = selector.map(|selector| {
        let pair = [("fieldSelector", selector)];
        let text = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pair)
            .finish();
        Query::parse(&text)
    });
    (attributes, query.unwrap_or_default())
}

/// The verb as the policy knows it; an unknown one matches no rule but `*`.
fn known_verb(text: &str) -> &'static str {
    const VERBS: [&str; 12] = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "post",
        "put",
        "head",
        "*",
    ];
    VERBS.into_iter().find(|verb| *verb == text).unwrap_or("")
}

async fn token(call: &Call, spec: &Value) -> Result<Value, Status> {
    let mut audiences = texts(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let token = spec["token"].as_str().unwrap_or_default();
    let api = &call.api;
    let reviewed = authn::review(token, &audiences, &api.tokens, &api.registry).await?;
    Ok(match reviewed {
        Some((user, claims)) => {
            let good = claims.aud.iter().filter(|aud| audiences.contains(aud));
            json!({
                "authenticated": true, "user": user.to_value(),
                "audiences": good.collect::<Vec<_>>(),
            })
        }
        None => json!({ "user": {}, "error": "invalid bearer token" }),
    })
}
