//! What people see who use kubectl against the server.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test crate uses its own part")]
mod support;

use support::{Cluster, has_kubectl, printed};

const ACCOUNT: &str = r"
apiVersion: v1
kind: ServiceAccount
metadata: {name: default, namespace: default}
";

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: x}}
spec:
  containers: [{name: c, image: busybox, command: [sleep, "100"]}]
"#;

const WEB: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

#[test]
fn objects_are_read_patched_and_scaled() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(ACCOUNT);
    cluster.apply(POD);
    cluster.apply(WEB);
    let row = cluster.ok(&["get", "pod", "one", "--no-headers", "-o", "wide"]);
    assert_eq!(
        row.split_whitespace().take(3).collect::<Vec<_>>(),
        ["one", "0/1", "Pending"]
    );
    assert_eq!(
        cluster.ok(&["get", "deploy", "-o", "name"]),
        "deployment.apps/web\n"
    );
    let replicas = [
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.spec.replicas} {.metadata.generation}",
    ];
    assert_eq!(cluster.ok(&replicas), "2 1");
    cluster.ok(&["scale", "deploy", "web", "--replicas=5"]);
    assert_eq!(cluster.ok(&replicas), "5 2");
    let strategic = r#"{"metadata":{"labels":{"s":"1"}}}"#;
    let json = r#"[{"op":"add","path":"/metadata/labels/j","value":"1"}]"#;
    cluster.ok(&["patch", "pod", "one", "-p", strategic]);
    cluster.ok(&[
        "patch",
        "pod",
        "one",
        "--type=merge",
        "-p",
        r#"{"metadata":{"labels":{"m":"1"}}}"#,
    ]);
    cluster.ok(&["patch", "pod", "one", "--type=json", "-p", json]);
    cluster.ok(&["label", "pod", "one", "l=1"]);
    let selected = ["get", "pods", "-l", "app=x,s,m,j=1,l", "-o", "name"];
    assert_eq!(cluster.ok(&selected), "pod/one\n");
    let pending = [
        "get",
        "pods",
        "--field-selector=status.phase!=Pending",
        "-o",
        "name",
    ];
    assert_eq!(cluster.ok(&pending), "");
}

#[test]
fn objects_are_made_by_verbs_and_deleted() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(ACCOUNT);
    cluster.apply(POD);
    cluster.apply(WEB);
    cluster.ok(&["set", "image", "deploy/web", "web=web:2"]);
    cluster.ok(&["expose", "deploy", "web", "--port=81", "--name=again"]);
    let ip = cluster.ok(&["get", "svc", "again", "-o", "jsonpath={.spec.clusterIP}"]);
    assert!(ip.starts_with("10.96."), "{ip}");
    cluster.ok(&[
        "create",
        "configmap",
        "page",
        "--from-literal=index.html=hello",
    ]);
    assert_eq!(
        cluster.ok(&["get", "cm", "page", "-o", "jsonpath={.data}"]),
        r#"{"index.html":"hello"}"#
    );
    cluster.ok(&["delete", "pod", "one", "--timeout=5s"]);
    cluster.ok(&["delete", "svc", "again"]);
    let explained = cluster.ok(&["explain", "pod.spec.containers.image"]);
    assert!(explained.contains("FIELD: image <string>"), "{explained}");
}

#[test]
fn errors_have_the_usual_texts() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(ACCOUNT);
    let check = |arguments: &[&str], expected: &str| {
        let printed = cluster.kubectl(arguments);
        assert_ne!(printed.code, 0, "{arguments:?}: {}", printed.out);
        assert!(
            printed.err.contains(expected),
            "{arguments:?}: {}",
            printed.err
        );
    };
    check(
        &["get", "pod", "x"],
        r#"Error from server (NotFound): pods "x" not found"#,
    );
    check(
        &["delete", "ns", "default"],
        r#"Error from server (Forbidden): namespaces "default" is forbidden: this namespace may not be deleted"#,
    );
    check(
        &["-n", "nope", "create", "cm", "x"],
        r#"namespaces "nope" not found"#,
    );
    check(
        &["get", "foo"],
        r#"the server doesn't have a resource type "foo""#,
    );
    cluster.ok(&["create", "cm", "a"]);
    check(&["create", "cm", "a"], r#"configmaps "a" already exists"#);
    let bad = |manifest: &str, expected: &str| {
        let printed = cluster.with_input(&["apply", "-f", "-"], manifest);
        assert_ne!(printed.code, 0, "{}", printed.out);
        assert!(printed.err.contains(expected), "{}", printed.err);
    };
    bad(
        &POD.replace("image:", "imagee: x, image:"),
        r#"strict decoding error: unknown field "spec.containers[0].imagee""#,
    );
    bad(
        &POD.replace("[sleep, \"100\"]", "5"),
        "cannot unmarshal number into Go struct field Container.spec.containers.command of type []string",
    );
    bad(
        &POD.replace("name: one", "name: Not_Valid"),
        r#"The Pod "Not_Valid" is invalid: metadata.name: Invalid value: "Not_Valid": a lowercase RFC 1123 subdomain"#,
    );
    cluster.apply(POD);
    let stale = POD.replace("name: one,", "name: one, resourceVersion: \"1\",");
    let printed = cluster.with_input(&["replace", "-f", "-"], &stale);
    assert!(
        printed.err.contains("Operation cannot be fulfilled on pods \"one\": the object has been modified; please apply your changes to the latest version and try again"),
        "{}",
        printed.err
    );
}

#[test]
fn identities_may_do_what_is_theirs() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(ACCOUNT);
    cluster.apply(POD);
    cluster.ok(&["create", "secret", "generic", "s", "--from-literal=a=b"]);
    let run = |identity: &str, arguments: &[&str]| {
        printed(cluster.kubectl_as(identity, arguments).output().unwrap())
    };
    let refused = run("scheduler", &["get", "secrets"]);
    assert!(
        refused.err.contains(r#"secrets is forbidden: User "system:kube-scheduler" cannot list resource "secrets" in API group "" in the namespace "default""#),
        "{}",
        refused.err
    );
    assert_eq!(run("scheduler", &["get", "pods"]).code, 0);
    assert_eq!(
        run("controller-replicaset-controller", &["get", "pods"]).code,
        0
    );
    assert_ne!(
        run("controller-replicaset-controller", &["get", "secrets"]).code,
        0
    );
    assert_ne!(run("node-n1", &["get", "pods"]).code, 0);
    let own = ["get", "pods", "--field-selector=spec.nodeName=n1"];
    assert_eq!(run("node-n1", &own).code, 0);
    assert_ne!(run("node-n1", &["get", "secret", "s"]).code, 0);
    let token = cluster.ok(&["create", "token", "default"]);
    let with_token = |arguments: &[&str]| {
        let server = format!("https://{}", cluster.address);
        let ca = cluster.dir.path().join("pki/ca.crt");
        let mut command = std::process::Command::new("kubectl");
        command
            .args(["--server", &server, "--token", token.trim()])
            .args(["--certificate-authority", ca.to_str().unwrap()])
            .args(arguments)
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", cluster.dir.path());
        printed(command.output().unwrap())
    };
    let whoami = with_token(&["auth", "whoami"]);
    assert!(
        whoami.out.contains("system:serviceaccount:default:default"),
        "{}",
        whoami.err
    );
    let refused = with_token(&["get", "pods"]);
    assert!(
        refused.err.contains(r#"pods is forbidden: User "system:serviceaccount:default:default" cannot list resource "pods""#),
        "{}",
        refused.err
    );
    cluster.ok(&["delete", "sa", "default"]);
    let gone = with_token(&["get", "pods"]);
    assert!(gone.err.contains("You must be logged in"), "{}", gone.err);
    let other = ["auth", "can-i", "list", "pods", "--as", "someone"];
    assert_eq!(cluster.kubectl(&other).out, "no\n");
}

#[test]
fn what_an_identity_may_do_is_listed() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    let all = cluster.ok(&["auth", "can-i", "--list"]);
    assert!(all.contains("*.*"), "{all}");
    let list = ["auth", "can-i", "--list"];
    let own = cluster.kubectl_as("scheduler", &list).output().unwrap();
    let own = printed(own);
    assert!(own.out.contains("pods/binding"), "{} {}", own.out, own.err);
    assert!(!own.out.contains("*.*"), "{}", own.out);
}

#[test]
fn everything_is_there_after_a_restart() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.ok(&["create", "cm", "kept", "--from-literal=a=b"]);
    let cluster = Cluster::start_in(cluster.stop());
    assert_eq!(
        cluster.ok(&["get", "cm", "kept", "-o", "jsonpath={.data.a}"]),
        "b"
    );
    assert_eq!(
        cluster.ok(&[
            "get",
            "svc",
            "kubernetes",
            "-o",
            "jsonpath={.spec.clusterIP}"
        ]),
        "10.96.0.1"
    );
}

#[test]
fn an_owner_lets_go_of_the_object_with_the_uid_only() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(ACCOUNT);
    cluster.apply(POD);
    let patch = |text: &str| cluster.kubectl(&["patch", "pod", "one", "-p", text]);
    let own = r#"{"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",
        "name":"web","uid":"o","controller":true}]}}"#;
    assert_eq!(patch(own).code, 0);
    let owners = [
        "get",
        "pod",
        "one",
        "-o",
        "jsonpath={.metadata.ownerReferences[*].name}",
    ];
    assert_eq!(cluster.ok(&owners), "web");
    let release = |uid: &str| {
        patch(&format!(
            r#"{{"metadata":{{"uid":"{uid}","ownerReferences":[{{"$patch":"delete","uid":"o"}}]}}}}"#
        ))
    };
    assert_ne!(release("another").code, 0);
    assert_eq!(cluster.ok(&owners), "web");
    let uid = cluster.ok(&["get", "pod", "one", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(release(&uid).code, 0);
    assert_eq!(cluster.ok(&owners), "");
}

#[test]
fn a_pod_held_by_gates_says_so() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.apply(ACCOUNT);
    cluster.apply(&POD.replace(
        "spec:",
        "spec:\n  schedulingGates: [{name: example.com/wait}]",
    ));
    let row = cluster.ok(&["get", "pod", "one", "--no-headers"]);
    assert_eq!(row.split_whitespace().nth(2), Some("SchedulingGated"));
    let message = cluster.ok(&[
        "get",
        "pod",
        "one",
        "-o",
        r#"jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}"#,
    ]);
    assert_eq!(
        message,
        "Scheduling is blocked due to non-empty scheduling gates"
    );
}
