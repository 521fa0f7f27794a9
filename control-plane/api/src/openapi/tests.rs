use super::*;

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Every `$ref` below a value.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get("$ref") {
                found.push(text.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn v2_is_whole() {
    let document = parsed(v2_json());
    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "fieldValidation")
    );
}

#[test]
fn protobuf_has_what_json_has() {
    let document = parsed(v2_json());
    let count = |name: &str| document[name].as_object().unwrap().len();
    assert_eq!(
        gnostic::count_of_definitions_and_paths(v2_protobuf()),
        (count("definitions"), count("paths"))
    );
}

#[test]
fn v3_per_group_version() {
    let index = parsed(v3_index());
    for path in index["paths"].as_object().unwrap().keys() {
        let document = parsed(v3(path).unwrap());
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            assert!(
                document
                    .pointer(reference.trim_start_matches('#'))
                    .is_some(),
                "{path} {reference}"
            );
        }
    }
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="));
    assert!(v3("apis/batch/v1").is_none());
    let core = parsed(v3("api/v1").unwrap());
    let ids: Vec<&str> = [
        "/api/v1/pods",
        "/api/v1/namespaces/{namespace}/pods",
        "/api/v1/namespaces/{namespace}/pods/{name}/exec",
    ]
    .iter()
    .map(|path| core["paths"][path]["get"]["operationId"].as_str().unwrap())
    .collect();
    assert_eq!(
        ids,
        [
            "listCoreV1PodForAllNamespaces",
            "listCoreV1NamespacedPod",
            "connectCoreV1GetNamespacedPodExec"
        ]
    );
}
