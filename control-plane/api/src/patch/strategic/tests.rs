use super::*;
use crate::schema::named;
use serde_json::json;

/// One row: type, original, patch, result.
#[expect(clippy::too_many_lines, reason = "one table")]
fn rows() -> Vec<(&'static str, Value, Value, Value)> {
    vec![
        // objects merge, null removes, a null for nothing is nothing
        (
            "apps.v1.Deployment",
            json!({"spec": {"replicas": 1, "paused": true}}),
            json!({"spec": {"replicas": 3, "paused": null, "minReadySeconds": null}}),
            json!({"spec": {"replicas": 3}}),
        ),
        // containers merge by name
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "y"}]}),
            json!({"containers": [{"name": "b", "image": "z"}]}),
            json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "z"}]}),
        ),
        // a new item goes before what the patch does not name
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "n", "image": "i"}]}),
            json!({"containers": [{"name": "n", "image": "i"}, {"name": "a"}]}),
        ),
        // atomic lists are replaced
        (
            "core.v1.Container",
            json!({"args": ["a", "b"]}),
            json!({"args": ["c"]}),
            json!({"args": ["c"]}),
        ),
        // ports merge by containerPort alone
        (
            "core.v1.Container",
            json!({"ports": [{"containerPort": 80, "protocol": "TCP"}]}),
            json!({"ports": [{"containerPort": 80, "name": "http"}]}),
            json!({"ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}]}),
        ),
        // $patch: delete of an item
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "delete", "name": "a"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        // $patch: replace of a list
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
            json!({"containers": [{"name": "c"}]}),
        ),
        // $patch: replace and delete of an object
        (
            "core.v1.ObjectMeta",
            json!({"labels": {"a": "1"}}),
            json!({"labels": {"$patch": "replace", "b": "2"}}),
            json!({"labels": {"b": "2"}}),
        ),
        (
            "apps.v1.DeploymentSpec",
            json!({"strategy": {"type": "RollingUpdate"}}),
            json!({"strategy": {"$patch": "delete"}}),
            json!({"strategy": {}}),
        ),
        // $retainKeys
        (
            "apps.v1.DeploymentSpec",
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate"}}),
        ),
        (
            "core.v1.PodSpec",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
        ),
        // lists of scalars with merge strategy
        (
            "apimachinery.pkg.apis.meta.v1.ObjectMeta",
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"]}),
            json!({"finalizers": ["c", "b"]}),
        ),
        // $setElementOrder
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "srv"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
                "containers": [{"name": "new", "image": "i"}]}),
            json!({"containers": [{"name": "b"}, {"name": "new", "image": "i"}, {"name": "a"}, {"name": "srv"}]}),
        ),
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        ),
        // kubectl set env: an item inside an item
        (
            "core.v1.PodSpec",
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}),
            json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a",
                "$setElementOrder/env": [{"name": "X"}, {"name": "Z"}],
                "env": [{"name": "Z", "value": "3"}, {"$patch": "delete", "name": "Y"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Z", "value": "3"}]}]}),
        ),
        // directives where there is nothing to direct
        (
            "core.v1.PodSpec",
            json!({}),
            json!({"containers": [{"name": "a", "args": null, "x": {"y": null}}, {"$patch": "delete", "name": "b"}]}),
            json!({"containers": [{"name": "a", "x": {}}]}),
        ),
        // another type replaces
        (
            "apps.v1.RollingUpdateDeployment",
            json!({"maxSurge": 1}),
            json!({"maxSurge": "25%"}),
            json!({"maxSurge": "25%"}),
        ),
        // conditions merge by type
        (
            "core.v1.PodStatus",
            json!({"conditions": [{"type": "Ready", "status": "False", "reason": "r"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}),
            json!({"conditions": [{"type": "Ready", "status": "True", "reason": "r"}, {"type": "PodScheduled", "status": "True"}]}),
        ),
    ]
}

#[test]
fn table() {
    for (of, original, patch, result) in rows() {
        let Some(of) = named(of) else {
            // ObjectMeta of no type at all: labels merge the same way
            let merged = merge_object(
                None,
                original.as_object().unwrap().clone(),
                patch.as_object().unwrap().clone(),
            );
            assert_eq!(Value::Object(merged.unwrap()), result);
            continue;
        };
        assert_eq!(
            strategic_merge(of, &original, &patch).unwrap(),
            result,
            "{patch}"
        );
    }
}

#[test]
fn a_patch_applied_twice_changes_nothing_more() {
    for (of, original, patch, _) in rows() {
        let Some(of) = named(of) else { continue };
        let once = strategic_merge(of, &original, &patch).unwrap();
        assert_eq!(strategic_merge(of, &once, &patch).unwrap(), once, "{patch}");
    }
}

#[test]
fn an_object_as_its_own_patch_changes_nothing() {
    for (of, original, _, result) in rows() {
        let Some(of) = named(of) else { continue };
        for object in [original, result] {
            assert_eq!(strategic_merge(of, &object, &object).unwrap(), object);
        }
    }
}

#[test]
fn refusals() {
    let spec = named("core.v1.PodSpec").unwrap();
    let original = json!({"containers": [{"name": "a"}]});
    for (patch, code) in [
        (json!([]), 400),
        (json!({"$patch": "other"}), 500),
        (json!({"containers": [{"image": "x"}]}), 500),
        (json!({"$retainKeys": ["a"], "b": 1}), 400),
        (json!({"$retainKeys": "a"}), 400),
        (json!({"$setElementOrder/containers": "a"}), 400),
        (
            json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}),
            500,
        ),
        (json!({"$deleteFromPrimitiveList/x": 1}), 400),
        (json!({"containers": [["x"]]}), 422),
    ] {
        let error = strategic_merge(spec, &original, &patch).unwrap_err();
        assert_eq!(error.to_status().code, code, "{patch}");
    }
}

mod properties {
    use super::*;
    use proptest::collection::{btree_map, btree_set};
    use proptest::prelude::*;

    /// Containers told apart by name, with an image each.
    fn containers() -> impl Strategy<Value = Vec<Value>> {
        btree_map("[a-e]", "[x-z]", 0..5).prop_map(|map| {
            map.into_iter()
                .map(|(name, image)| json!({"name": name, "image": image}))
                .collect()
        })
    }

    fn merged(original: &[Value], patch: Value) -> Vec<Value> {
        let spec = named("core.v1.PodSpec").unwrap();
        let original = json!({ "containers": original });
        let out = strategic_merge(spec, &original, &patch).unwrap();
        out["containers"].as_array().unwrap().clone()
    }

    proptest! {
        #[test]
        fn a_merge_keeps_all_names_and_takes_the_patch(
            original in containers(), patch in containers().prop_shuffle(),
        ) {
            let out = merged(&original, json!({ "containers": patch }));
            for item in &patch {
                prop_assert!(out.contains(item));
            }
            for item in &original {
                let count = out.iter().filter(|o| o["name"] == item["name"]).count();
                prop_assert_eq!(count, 1);
            }
            let order: Vec<&Value> = out.iter().filter(|o| patch.contains(o)).collect();
            let wanted: Vec<&Value> = patch.iter().collect();
            prop_assert_eq!(order, wanted, "the patch's order holds");
        }

        #[test]
        fn deletions_leave_exactly_the_rest(
            original in containers(), gone in btree_set("[a-e]", 0..5),
        ) {
            let patch: Vec<Value> =
                gone.iter().map(|name| json!({"$patch": "delete", "name": name})).collect();
            let rest: Vec<Value> = original
                .iter()
                .filter(|c| !gone.contains(c["name"].as_str().unwrap()))
                .cloned()
                .collect();
            prop_assert_eq!(merged(&original, json!({ "containers": patch })), rest);
        }

        #[test]
        fn an_element_order_of_everything_is_the_result_s_order(
            original in containers().prop_shuffle(), order in containers().prop_shuffle(),
        ) {
            let patch = json!({"$setElementOrder/containers": order});
            let out = merged(&original, patch);
            let named: Vec<&Value> = out
                .iter()
                .map(|o| &o["name"])
                .filter(|name| order.iter().any(|o| o["name"] == **name))
                .collect();
            let wanted: Vec<&Value> = order
                .iter()
                .map(|o| &o["name"])
                .filter(|name| original.iter().any(|o| o["name"] == **name))
                .collect();
            prop_assert_eq!(named, wanted);
            prop_assert_eq!(out.len(), original.len());
        }
    }
}
