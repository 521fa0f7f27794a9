//! `delete` and `deletecollection`: at once, or by a deletionTimestamp while a grace period
//! runs or finalizers hold the object.

use berth_api::{
    gvk::Resource,
    meta,
    schema::{self, FieldValidation},
    status::{self, Status},
};
use berth_store::{Op, Range};
use chrono::{Duration, Utc};
use http::Response;
use serde_json::{Value, json};

use super::Call;
use crate::{
    admission, object,
    registry::{self, Next, ObjectRef, Outcome},
    response::{self, Body},
    service_ip,
};

/// Finalizers that the garbage collector serves.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// `DeleteOptions` with query parameters merged in.
#[derive(Clone, Debug, Default)]
struct Options {
    grace: Option<i64>,
    policy: Option<String>,
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

impl Options {
    fn of(call: &Call) -> Result<Self, Status> {
        let mut body = Value::Null;
        if !call.body.is_empty() {
            let content_type = call.content_type();
            (body, _) = schema::decode_kind(
                "v1",
                "DeleteOptions",
                &call.body,
                content_type,
                FieldValidation::Ignore,
            )?;
        }
        Self::merge(call, &body)
    }

    fn merge(call: &Call, body: &Value) -> Result<Self, Status> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let query = |name: &str| call.query.get(name).filter(|text| !text.is_empty());
        let grace = match query("gracePeriodSeconds") {
            Some(text) => Some(text.parse().map_err(|_| {
                status::bad_request(format!("gracePeriodSeconds: Invalid value: \"{text}\""))
            })?),
            None => body["gracePeriodSeconds"].as_i64(),
        };
        let policy = match (query("propagationPolicy"), body) {
            (Some(policy), _) => Some(policy.to_owned()),
            (None, body) if body["orphanDependents"] == true => Some("Orphan".to_owned()),
            (None, body) => text(&body["propagationPolicy"]),
        };
        let known = ["Orphan", "Background", "Foreground"];
        if let Some(policy) = policy.as_deref().filter(|policy| !known.contains(policy)) {
            return Err(status::bad_request(format!(
                "propagationPolicy: Unsupported value: \"{policy}\": supported values: \"Background\", \"Foreground\", \"Orphan\""
            )));
        }
        let dry_run = body["dryRun"]
            .as_array()
            .is_some_and(|list| list.iter().any(|item| item == "All"));
        Ok(Self {
            grace,
            policy,
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
            dry_run: dry_run || call.dry_run()?,
        })
    }

    fn check_preconditions(&self, resource: &Resource, object: &Value) -> Result<(), Status> {
        let checks = [
            ("UID", &self.uid, meta::uid(object)),
            (
                "ResourceVersion",
                &self.version,
                meta::resource_version(object),
            ),
        ];
        for (what, wanted, present) in checks {
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != present) {
                let text = format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {present}"
                );
                return Err(status::conflict(resource, meta::name(object), &text));
            }
        }
        Ok(())
    }
}

/// Answers with the object while it still exists, with a `Status` once it is gone.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let options = Options::of(call)?;
    admission::check_delete(call, &call.attributes.name)?;
    let target = call.target();
    match delete(call, &target, &options).await? {
        Outcome::Stored(object) => call.respond(200, object, &[]),
        Outcome::Deleted(object) if returns_object(call.resource) => call.respond(200, object, &[]),
        Outcome::Deleted(object) => {
            let gone = status::deleted(call.resource, target.name, meta::uid(&object));
            Ok(response::json(200, &gone))
        }
    }
}

/// Deletes the object of the path with options from another body.
pub async fn with_options(call: &Call, options: &Value) -> Result<(), Status> {
    let options = Options::merge(call, options)?;
    delete(call, &call.target(), &options).await?;
    Ok(())
}

/// Kinds whose deletion answers with the object (stock `ReturnDeletedObject`).
fn returns_object(resource: &Resource) -> bool {
    matches!(resource.plural, "pods" | "services" | "serviceaccounts")
}

/// Deletes every selected object of a namespace; answers with what was selected.
pub async fn collection(call: &Call) -> Result<Response<Body>, Status> {
    let options = Options::of(call)?;
    let selectors = call.selectors()?;
    let range = Range {
        prefix: registry::prefix(call.resource, call.namespace()),
        ..Range::default()
    };
    let page = call.api.registry.range(range).await;
    let page = page.map_err(registry::read_status)?;
    let mut items = Vec::new();
    for entry in &page.entries {
        let object = object::of_entry(call.resource, entry);
        if !selectors.matches(&object) {
            continue;
        }
        let target = ObjectRef {
            resource: call.resource,
            namespace: meta::namespace(&object),
            name: meta::name(&object),
        };
        match delete(call, &target, &options).await {
            Ok(Outcome::Stored(object) | Outcome::Deleted(object)) => items.push(object),
            // Another request was faster.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let list = json!({
        "kind": format!("{}List", call.resource.kind),
        "apiVersion": call.resource.api_version(),
        "metadata": { "resourceVersion": page.revision.to_string() },
        "items": items,
    });
    Ok(response::json(200, &list))
}

async fn delete(call: &Call, target: &ObjectRef<'_>, options: &Options) -> Result<Outcome, Status> {
    let resource = target.resource;
    let registry = &call.api.registry;
    registry
        .update(target, options.dry_run, |old| {
            options.check_preconditions(resource, old)?;
            Ok(decide(resource, old, options))
        })
        .await
}

/// What a deletion makes of an object. Pure but for the clock.
fn decide(resource: &'static Resource, old: &Value, options: &Options) -> Next {
    let mut new = old.clone();
    set_policy_finalizer(&mut new, options.policy.as_deref());
    let grace = grace_seconds(resource, old, options.grace);
    let deleting = meta::is_deleting(old);
    let held = !nothing_but_grace_holds(resource, &new);
    if grace == 0 && !held {
        return Next::Delete(released(resource, old));
    }
    let running = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if deleting && grace >= running.unwrap_or(0) {
        // A deletion can only be made faster, never slower.
        return if new == *old {
            Next::Keep
        } else {
            Next::Put(new)
        };
    }
    let at = Utc::now() + Duration::seconds(grace);
    meta::set(&mut new, "deletionTimestamp", meta::timestamp(at));
    meta::set(&mut new, "deletionGracePeriodSeconds", grace);
    let generation = old["metadata"]["generation"].as_i64();
    if let Some(generation) = generation.filter(|_| !deleting) {
        meta::set(&mut new, "generation", generation + 1);
    }
    if resource.plural == "namespaces" {
        new["status"]["phase"] = "Terminating".into();
    }
    Next::Put(new)
}

/// Seconds of grace: only pods that may still run have any.
fn grace_seconds(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    if resource.plural != "pods" {
        return 0;
    }
    let unscheduled = object["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    if unscheduled || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64();
    let grace = asked.or(own).unwrap_or(30);
    // Negative asks for the quickest orderly end (stock).
    if grace < 0 { 1 } else { grace }
}

fn set_policy_finalizer(object: &mut Value, policy: Option<&str>) {
    let wanted = match policy {
        Some("Foreground") => Some(FOREGROUND),
        Some("Orphan") => Some(ORPHAN),
        Some(_) => None,
        None => return,
    };
    let kept = meta::finalizers(object)
        .into_iter()
        .filter(|finalizer| ![FOREGROUND, ORPHAN].contains(finalizer));
    let finalizers: Vec<String> = kept.chain(wanted).map(str::to_owned).collect();
    if finalizers.is_empty() {
        meta::unset(object, "finalizers");
    } else {
        meta::set(object, "finalizers", finalizers);
    }
}

fn nothing_but_grace_holds(resource: &Resource, object: &Value) -> bool {
    let content = object["spec"]["finalizers"].as_array();
    let has_content =
        resource.plural == "namespaces" && content.is_some_and(|list| !list.is_empty());
    meta::finalizers(object).is_empty() && !has_content
}

/// Whether an object whose deletion has begun may go: no finalizers, no grace left.
pub fn nothing_holds(resource: &Resource, object: &Value) -> bool {
    let grace = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    grace.unwrap_or(0) == 0 && nothing_but_grace_holds(resource, object)
}

/// Further writes of the transaction that removes an object.
pub fn released(resource: &Resource, object: &Value) -> Vec<Op> {
    if resource.group.is_empty() && resource.plural == "services" {
        return service_ip::release(object);
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::gvk;

    fn pod(phase: &str, node: &str) -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"nodeName": node, "terminationGracePeriodSeconds": 5},
            "status": {"phase": phase},
        })
    }

    fn decided(object: &Value, grace: Option<i64>) -> String {
        let pods = gvk::find("", "v1", "pods").unwrap();
        let options = Options {
            grace,
            ..Options::default()
        };
        match decide(pods, object, &options) {
            Next::Delete(_) => "gone".into(),
            Next::Keep => "kept".into(),
            Next::Put(new) => new["metadata"]["deletionGracePeriodSeconds"].to_string(),
        }
    }

    #[test]
    fn pods_go_gracefully_unless_nothing_of_them_runs() {
        assert_eq!(decided(&pod("Running", "n"), None), "5");
        assert_eq!(decided(&pod("Running", "n"), Some(30)), "30");
        assert_eq!(decided(&pod("Running", "n"), Some(0)), "gone");
        assert_eq!(decided(&pod("Pending", ""), None), "gone");
        assert_eq!(decided(&pod("Succeeded", "n"), None), "gone");
        let mut held = pod("Succeeded", "n");
        meta::set(&mut held, "finalizers", json!(["x"]));
        assert_eq!(decided(&held, None), "0");
        let mut deleting = pod("Running", "n");
        meta::set(&mut deleting, "deletionTimestamp", "2026-01-01T00:00:00Z");
        meta::set(&mut deleting, "deletionGracePeriodSeconds", 5);
        assert_eq!(decided(&deleting, None), "kept");
        assert_eq!(decided(&deleting, Some(2)), "2");
        assert_eq!(decided(&deleting, Some(0)), "gone");
    }
}
