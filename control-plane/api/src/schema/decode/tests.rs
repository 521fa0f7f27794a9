use super::*;
use crate::gvk::find;
use serde_json::json;

fn fault(group: &str, plural: &str, object: Value) -> String {
    let resource = find(group, "v1", plural).unwrap();
    let body = serde_json::to_vec(&object).unwrap();
    decode(resource, &body, "application/json", FieldValidation::Strict)
        .unwrap_err()
        .message
}

#[test]
fn texts_of_faults() {
    let deployment = |spec: Value| {
        fault(
            "apps",
            "deployments",
            json!({"kind": "Deployment", "apiVersion": "apps/v1", "spec": spec}),
        )
    };
    let head = "Deployment in version \"v1\" cannot be handled as a Deployment: ";
    for (spec, text) in [
        (
            json!({"replicas": "x"}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"replicas": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"foo": 1}),
            "strict decoding error: unknown field \"spec.foo\"",
        ),
        (
            json!({"template": {"spec": {"containers": {}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"template": {"spec": {"containers": [{"env": [{"name": "a", "value": 1}]}]}}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            json!({"template": {"spec": {"containers": [{"imagePullPolicy": 1}]}}}),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.imagePullPolicy of type v1.PullPolicy",
        ),
        (
            json!({"template": {"spec": {"containers": [{"a": 1}, {"b": 1}]}}}),
            "strict decoding error: unknown field \"spec.template.spec.containers[0].a\", unknown field \"spec.template.spec.containers[1].b\"",
        ),
        (
            json!({"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"selector": {"matchLabels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field LabelSelector.spec.selector.matchLabels of type string",
        ),
    ] {
        assert_eq!(deployment(spec), format!("{head}{text}"));
    }
    assert_eq!(
        fault("", "secrets", json!({"data": {"a": "&"}})),
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0"
    );
    assert_eq!(
        fault("", "pods", json!({"kind": "ConfigMap", "apiVersion": "v1"})),
        "ConfigMap in version \"v1\" cannot be handled as a Pod: converting (v1.ConfigMap) to (v1.Pod): unknown conversion"
    );
    assert_eq!(
        fault("", "pods", json!({"kind": "Pod", "apiVersion": "v2"})),
        "the API version in the data (v2) does not match the expected API version (v1)"
    );
}

#[test]
fn warnings_and_duplicates() {
    let pods = find("", "v1", "pods").unwrap();
    let body = br#"{"spec":{"x":1,"nodeName":"a","nodeName":"b"}}"#;
    let (pod, warnings) = decode(pods, body, "application/json", FieldValidation::Warn).unwrap();
    assert_eq!(
        warnings,
        [
            "unknown field \"spec.x\"",
            "duplicate field \"spec.nodeName\""
        ]
    );
    assert_eq!(pod["spec"]["nodeName"], "b");
    assert_eq!(pod["kind"], "Pod");
    let (_, silent) = decode(pods, body, "application/json", FieldValidation::Ignore).unwrap();
    assert!(silent.is_empty());
    let error = decode(pods, body, "application/json", FieldValidation::Strict).unwrap_err();
    assert_eq!(error.code, 400);
    assert_eq!(
        error.message,
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.x\", duplicate field \"spec.nodeName\""
    );
}

#[test]
fn broken_bodies() {
    let pods = find("", "v1", "pods").unwrap();
    let error = decode(pods, b"{", "application/json", FieldValidation::Warn).unwrap_err();
    assert_eq!(
        error.message,
        "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: unexpected end of JSON input ({)"
    );
    let (options, _) = decode_kind(
        "v1",
        "DeleteOptions",
        br#"{"gracePeriodSeconds":0}"#,
        "application/json",
        FieldValidation::Warn,
    )
    .unwrap();
    assert_eq!(options["gracePeriodSeconds"], 0);
}
