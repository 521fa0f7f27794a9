use super::*;
use crate::defaults;
use crate::gvk::find;
use crate::schema::normalise;
use crate::status::invalid;
use serde_json::json;

mod pod;

fn prepared(group: &str, plural: &str, mut object: Value) -> (&'static Resource, Value) {
    let resource = find(group, "v1", plural).unwrap();
    normalise(resource, &mut object);
    defaults::apply(resource, &mut object);
    (resource, object)
}

/// The faults of a create, as texts.
fn faults(group: &str, plural: &str, object: Value) -> Vec<String> {
    let (resource, object) = prepared(group, plural, object);
    create(resource, &object)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn metadata() {
    let named = |metadata: Value| json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (metadata, fault) in [
        (
            json!({"namespace": "n"}),
            "metadata.name: Required value: name or generateName is required",
        ),
        (json!({"name": "a"}), "metadata.namespace: Required value"),
        (
            json!({"name": "a", "namespace": "n", "labels": {"-": "x"}}),
            "metadata.labels: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            json!({"name": "a", "namespace": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "x", "name": "y"}]}),
            "metadata.ownerReferences.uid: Required value: must not be empty",
        ),
    ] {
        let found = faults("", "pods", named(metadata));
        assert_eq!(found, [fault]);
    }
    let found = faults("", "pods", named(json!({"name": "A_b", "namespace": "n"})));
    assert!(
        found[0].starts_with(
            "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist"
        ),
        "{found:?}"
    );
    assert!(
        faults(
            "",
            "pods",
            named(json!({"generateName": "a-", "name": "a-xxxxx", "namespace": "n"}))
        )
        .is_empty()
    );
    assert_eq!(
        faults(
            "",
            "namespaces",
            json!({"metadata": {"name": "n", "namespace": "x"}})
        ),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
}

#[test]
fn updates_of_metadata() {
    let (resource, old) = prepared(
        "",
        "configmaps",
        json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let mut new = old.clone();
    new["metadata"]["uid"] = "v".into();
    new["metadata"]["finalizers"] = json!(["x/y"]);
    let found: Vec<String> = update(resource, &new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/y\"}",
            "metadata.uid: Invalid value: \"v\": field is immutable",
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn deployments() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment =
        |spec: Value| json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec});
    let good = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    assert!(faults("apps", "deployments", deployment(good.clone())).is_empty());
    for (key, value, fault) in [
        ("selector", Value::Null, "spec.selector: Required value"),
        (
            "selector",
            json!({}),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            "selector",
            json!({"matchLabels": {"app": "x"}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (
            "replicas",
            json!(-1),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "strategy",
            json!({"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "strategy",
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "progressDeadlineSeconds",
            json!(0),
            "spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds",
        ),
    ] {
        let mut spec = good.clone();
        spec[key] = value;
        assert_eq!(faults("apps", "deployments", deployment(spec)), [fault]);
    }
    let mut never = good.clone();
    never["template"]["spec"]["restartPolicy"] = "Never".into();
    assert_eq!(
        faults("apps", "deployments", deployment(never)),
        [
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""
        ]
    );
    let (resource, old) = prepared("apps", "deployments", deployment(good));
    let mut new = old.clone();
    new["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    new["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    let found = update(resource, &new, &old);
    assert_eq!(
        found[0].to_string(),
        "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"
    );
    let status = invalid(resource, "web", &found);
    assert_eq!(
        status.message,
        "Deployment.apps \"web\" is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"other\"}}: field is immutable"
    );
}

#[test]
fn services() {
    let service =
        |spec: Value| json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec});
    assert!(
        faults(
            "",
            "services",
            service(json!({"ports": [{"port": 80}], "selector": {"a": "b"}}))
        )
        .is_empty()
    );
    for (spec, fault) in [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 0}]}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81}]}),
            "spec.ports[1].name: Required value",
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"type": "Foo", "ports": [{"port": 80}]}),
            "spec.type: Unsupported value: \"Foo\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"type": "ExternalName"}),
            "spec.externalName: Required value",
        ),
    ] {
        let found = faults("", "services", service(spec));
        assert!(found.iter().any(|f| f == fault), "{found:?} lacks {fault}");
    }
    let (resource, mut old) = prepared("", "services", service(json!({"ports": [{"port": 80}]})));
    old["spec"]["clusterIP"] = "10.96.0.5".into();
    old["spec"]["clusterIPs"] = json!(["10.96.0.5"]);
    let mut new = old.clone();
    new["spec"]["clusterIP"] = "10.96.0.6".into();
    new["spec"]["clusterIPs"] = json!(["10.96.0.6"]);
    assert_eq!(
        update(resource, &new, &old)[0].to_string(),
        "spec.clusterIPs[0]: Invalid value: [\"10.96.0.6\"]: may not change once set"
    );
}

#[test]
fn what_the_service_proxy_does_not_follow_is_refused_by_name() {
    let with = |field: &str, value: Value| {
        let mut spec = json!({"ports": [{"port": 80}]});
        spec[field] = value;
        json!({"metadata": {"name": "s", "namespace": "default"}, "spec": spec})
    };
    for (field, value) in [
        ("externalIPs", json!(["192.0.2.1"])),
        ("internalTrafficPolicy", json!("Local")),
        ("loadBalancerClass", json!("x/y")),
        ("loadBalancerIP", json!("192.0.2.1")),
        ("loadBalancerSourceRanges", json!(["192.0.2.0/24"])),
        ("trafficDistribution", json!("PreferClose")),
    ] {
        let wanted = format!("spec.{field}: Invalid value: {value}: this is not served yet");
        let found = faults("", "services", with(field, value.clone()));
        assert_eq!(found, [wanted]);
        let (resource, old) = prepared("", "services", with(field, value));
        assert!(update(resource, &old, &old).is_empty(), "{field} stands");
    }
    let affinity = with("sessionAffinity", json!("ClientIP"));
    assert!(faults("", "services", affinity).is_empty());
    let policy = faults(
        "",
        "services",
        with("externalTrafficPolicy", json!("Local")),
    );
    assert!(policy[0].starts_with("spec.externalTrafficPolicy: Invalid value"));
}

#[test]
fn small_kinds() {
    let named = |mut object: Value| {
        object["metadata"] = json!({"name": "x", "namespace": "default"});
        object
    };
    for (group, plural, object, wanted) in [
        (
            "",
            "configmaps",
            json!({"data": {"a b": ""}}),
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            "",
            "secrets",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["x"]}]}),
            "endpoints[0].addresses[0]: Invalid value: \"x\": must be an IPv4 address",
        ),
        (
            "",
            "events",
            json!({"involvedObject": {"namespace": "other"}}),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
        ),
    ] {
        assert_eq!(faults(group, plural, named(object)), [wanted]);
    }
    let (resource, old) = prepared(
        "",
        "secrets",
        named(json!({"immutable": true, "data": {"a": "Yg=="}})),
    );
    let mut new = old.clone();
    new["data"] = json!({});
    new["type"] = "other".into();
    let found: Vec<String> = update(resource, &new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "type: Invalid value: \"other\": field is immutable",
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
    );
}

#[test]
fn bindings() {
    assert!(binding(&json!({"target": {"kind": "Node", "name": "n"}})).is_empty());
    let found: Vec<String> = binding(&json!({"target": {"kind": "Pod"}}))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
            "target.name: Required value"
        ]
    );
}
