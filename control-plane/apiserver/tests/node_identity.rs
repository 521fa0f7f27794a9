//! A node reaches itself, its pods and what its pods refer to, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test crate uses its own part")]
mod support;

use support::{Cluster, Printed, has_kubectl, printed};

const OBJECTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: default}
---
apiVersion: v1
kind: Secret
metadata: {name: used, namespace: default}
---
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: mine, namespace: default}
spec:
  nodeName: n1
  containers:
  - name: c
    image: busybox
    env: [{name: A, valueFrom: {secretKeyRef: {name: used, key: a}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: theirs, namespace: default}
spec:
  nodeName: n2
  containers: [{name: c, image: busybox}]
"#;

fn node(cluster: &Cluster, arguments: &[&str]) -> Printed {
    printed(cluster.kubectl_as("node-n1", arguments).output().unwrap())
}

#[test]
fn a_node_reads_what_its_pods_refer_to() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(OBJECTS);
    let allowed: [&[&str]; 5] = [
        &["get", "pods", "--field-selector=spec.nodeName=n1"],
        &["get", "pod", "mine"],
        &["get", "secret", "used"],
        &["get", "services,endpointslices", "-A"],
        &["get", "nodes"],
    ];
    for arguments in allowed {
        let printed = node(&cluster, arguments);
        assert_eq!(printed.code, 0, "{arguments:?}: {}", printed.err);
    }
    let refused: [&[&str]; 7] = [
        &["get", "pods"],
        &["get", "pods", "--field-selector=spec.nodeName=n2"],
        &["get", "pod", "theirs"],
        &["get", "secrets"],
        &["get", "secret", "other"],
        &["delete", "pod", "theirs"],
        &["create", "configmap", "x"],
    ];
    for arguments in refused {
        let printed = node(&cluster, arguments);
        assert!(
            printed.err.contains("forbidden"),
            "{arguments:?}: {}",
            printed.err
        );
    }
}

#[test]
fn a_node_gets_tokens_only_for_its_own_pods() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(OBJECTS);
    let token = ["create", "token", "default", "--bound-object-kind=Pod"];
    let bound = |pod: &str| {
        let name = format!("--bound-object-name={pod}");
        let arguments: Vec<&str> = token.iter().copied().chain([name.as_str()]).collect();
        node(&cluster, &arguments)
    };
    let own = bound("mine");
    assert_eq!(own.code, 0, "{}", own.err);
    let other = bound("theirs");
    assert!(
        other
            .err
            .contains("node requested token bound to a pod scheduled on a different node"),
        "{}",
        other.err
    );
    let unbound = node(&cluster, &["create", "token", "default"]);
    assert!(
        unbound
            .err
            .contains("node requested token not bound to a pod"),
        "{}",
        unbound.err
    );
}

#[test]
fn a_node_writes_itself_and_the_status_of_its_pods() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(OBJECTS);
    let create = |name: &str| {
        let manifest = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n");
        let path = cluster.dir.path().join("node.yaml");
        std::fs::write(&path, manifest).unwrap();
        node(&cluster, &["create", "-f", path.to_str().unwrap()])
    };
    let own = create("n1");
    assert_eq!(own.code, 0, "{}", own.err);
    let other = create("n2");
    assert!(
        other
            .err
            .contains("node 'n1' is not allowed to create node 'n2'"),
        "{}",
        other.err
    );
    let status = r#"{"status":{"phase":"Running"}}"#;
    let patch = |pod: &str| {
        node(
            &cluster,
            &["patch", "pod", pod, "--subresource=status", "-p", status],
        )
    };
    let own = patch("mine");
    assert_eq!(own.code, 0, "{}", own.err);
    assert!(patch("theirs").err.contains("forbidden"));
    let gone = node(
        &cluster,
        &["delete", "pod", "mine", "--grace-period=0", "--force"],
    );
    assert_eq!(gone.code, 0, "{}", gone.err);
    assert_eq!(cluster.ok(&["get", "pods", "-o", "name"]), "pod/theirs\n");
}
