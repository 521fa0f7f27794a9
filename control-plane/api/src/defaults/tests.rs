use super::*;
use crate::gvk::find;
use serde_json::json;

fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    apply(find(group, "v1", plural).unwrap(), &mut object);
    object
}

#[test]
fn pod() {
    let pod = defaulted(
        "",
        "pods",
        json!({"metadata": {"name": "a"}, "spec": {
            "serviceAccountName": "sa",
            "containers": [{
                "name": "c", "image": "web",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80}, "failureThreshold": 0},
                "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 3},
                "resources": {"limits": {"cpu": "0.1001", "memory": "1Gi"}, "requests": {"cpu": "50m"}},
            }],
            "volumes": [
                {"name": "e"},
                {"name": "c", "configMap": {"name": "x"}},
                {"name": "h", "hostPath": {"path": "/x"}},
                {"name": "p", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
                ]}},
            ],
        }}),
    );
    assert_eq!(
        pod["spec"],
        json!({
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler",
            "enableServiceLinks": true, "serviceAccountName": "sa", "serviceAccount": "sa",
            "containers": [{
                "name": "c", "image": "web", "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "livenessProbe": {"exec": {"command": ["true"]},
                    "timeoutSeconds": 1, "periodSeconds": 3, "successThreshold": 1, "failureThreshold": 3},
                "resources": {"limits": {"cpu": "101m", "memory": "1Gi"},
                    "requests": {"cpu": "50m", "memory": "1Gi"}},
            }],
            "volumes": [
                {"name": "e", "emptyDir": {}},
                {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/x", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}},
                ]}},
            ],
        })
    );
}

#[test]
fn pull_policies() {
    for (image, policy) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:00", "IfNotPresent"),
        ("nginx:latest@sha256:00", "Always"),
    ] {
        assert_eq!(image_pull_policy(image), policy, "{image}");
    }
}

#[test]
fn host_network_ports() {
    let pod = defaulted(
        "",
        "pods",
        json!({"spec": {"hostNetwork": true,
        "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}}),
    );
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[test]
fn deployment() {
    let object = defaulted(
        "apps",
        "deployments",
        json!({"spec": {
        "template": {"spec": {"containers": [{"name": "a", "image": "b:1", "resources": {"limits": {"cpu": "1"}}}]}}}}),
    );
    let spec = &object["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(spec["revisionHistoryLimit"], 10);
    assert_eq!(spec["progressDeadlineSeconds"], 600);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["restartPolicy"], "Always");
    assert!(pod["enableServiceLinks"].is_null(), "only pods get it");
    assert!(pod["containers"][0]["resources"]["requests"].is_null());
    let zero = defaulted(
        "apps",
        "deployments",
        json!({"spec": {"replicas": 0, "strategy": {"type": "Recreate"}}}),
    );
    assert_eq!(zero["spec"]["replicas"], 0);
    assert_eq!(zero["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn services() {
    for (spec, wanted) in [
        (
            json!({"ports": [{"port": 80}], "selector": {"a": "b"}}),
            json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"a": "b"},
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}),
        ),
        (
            json!({"type": "NodePort", "sessionAffinity": "ClientIP"}),
            json!({"type": "NodePort", "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"]}),
        ),
        (
            json!({"type": "ExternalName", "externalName": "x"}),
            json!({"type": "ExternalName", "externalName": "x", "sessionAffinity": "None"}),
        ),
    ] {
        assert_eq!(
            defaulted("", "services", json!({ "spec": spec }))["spec"],
            wanted
        );
    }
}

#[test]
fn small_kinds() {
    let namespace = defaulted("", "namespaces", json!({"metadata": {"name": "n"}}));
    assert_eq!(
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "n"
    );
    assert_eq!(namespace["status"]["phase"], "Active");
    let secret = defaulted(
        "",
        "secrets",
        json!({"stringData": {"a": "b"}, "data": {"c": "ZA=="}}),
    );
    assert_eq!(
        secret,
        json!({"type": "Opaque", "data": {"a": "Yg==", "c": "ZA=="}})
    );
    let slice = defaulted(
        "discovery.k8s.io",
        "endpointslices",
        json!({"ports": [{"port": 1}]}),
    );
    assert_eq!(
        slice["ports"],
        json!([{"name": "", "port": 1, "protocol": "TCP"}])
    );
    let node = defaulted("", "nodes", json!({"status": {"capacity": {"cpu": "1"}}}));
    assert_eq!(node["status"]["allocatable"], json!({"cpu": "1"}));
}
