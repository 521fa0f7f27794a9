//! Events, in either of their shapes.

use serde_json::Value;

use super::rules::{Faults, text};
use crate::event::to_core;
use crate::gvk::Resource;

pub(super) fn check(resource: &Resource, new: &Value, old: Option<&Value>, faults: &mut Faults) {
    let event = to_core(new);
    let namespace = text(&event["metadata"], "namespace");
    let about = text(&event["involvedObject"], "namespace");
    // Events about objects of the cluster go to `default`.
    let fits =
        about == namespace || (about.is_empty() && matches!(namespace, "default" | "kube-system"));
    if !fits {
        let value = &event["involvedObject"]["namespace"];
        let shown = if value.is_null() {
            "".into()
        } else {
            value.clone()
        };
        faults.invalid(
            "involvedObject.namespace",
            &shown,
            "does not match event.namespace",
        );
    }
    if resource.group.is_empty() {
        return;
    }
    if old.is_none() {
        for (field, limit) in [
            ("reportingComponent", 0),
            ("reportingInstance", 128),
            ("action", 128),
            ("reason", 128),
        ] {
            let value = text(&event, field);
            let path = if field == "reportingComponent" {
                "reportingController"
            } else {
                field
            };
            if value.is_empty() {
                faults.required(path, "");
            } else if limit > 0 && value.len() > limit {
                faults.invalid(
                    path,
                    &"".into(),
                    &format!("can have at most {limit} characters"),
                );
            }
        }
        if event["eventTime"].is_null() {
            faults.required("eventTime", "");
        }
    }
    if text(&event, "message").len() > 1024 {
        faults.invalid("message", &"".into(), "can have at most 1024 characters");
    }
}
