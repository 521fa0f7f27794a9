use super::*;
use crate::gvk::{find, resources};

fn now() -> DateTime<Utc> {
    crate::meta::parse_time("2026-01-01T01:00:00Z").unwrap()
}

fn cells(group: &str, plural: &str, object: &Value) -> Vec<Value> {
    let resource = find(group, "v1", plural).unwrap();
    let table = table(
        resource,
        std::slice::from_ref(object),
        &json!({}),
        Include::None,
        now(),
    );
    table["rows"][0]["cells"].as_array().unwrap().clone()
}

#[test]
fn cells_fit_the_columns() {
    for resource in resources() {
        let table = table(resource, &[json!({})], &json!({}), Include::Metadata, now());
        let (columns, cells) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
        assert_eq!(
            columns.as_array().unwrap().len(),
            cells.as_array().unwrap().len(),
            "{}",
            resource.plural
        );
    }
}

fn pod(spec: Value, status: Value) -> Value {
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status})
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn pods() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let one = json!({"containers": [{"name": "a"}]});
    let init =
        json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
    let sidecar = json!({"initContainers": [{"name": "i", "restartPolicy": "Always"}], "containers": [{"name": "a"}]});
    let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
    for (name, spec, status, ready, reason, restarts) in [
        (
            "pending",
            two.clone(),
            json!({"phase": "Pending"}),
            "0/2",
            "Pending",
            "0",
        ),
        (
            "creating",
            one.clone(),
            json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
            "0/1",
            "ContainerCreating",
            "0",
        ),
        (
            "running",
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [running.clone()]}),
            "1/1",
            "Running",
            "0",
        ),
        (
            "evicted",
            one.clone(),
            json!({"phase": "Failed", "reason": "Evicted"}),
            "0/1",
            "Evicted",
            "0",
        ),
        (
            "crashing",
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [{"restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T00:59:55Z"}}}]}),
            "0/1",
            "CrashLoopBackOff",
            "3 (5s ago)",
        ),
        (
            "oom",
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [{"restartCount": 1,
            "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}),
            "0/1",
            "OOMKilled",
            "1",
        ),
        (
            "exit code",
            one.clone(),
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "0/1",
            "ExitCode:3",
            "0",
        ),
        (
            "signal",
            one.clone(),
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"signal": 9, "exitCode": 137}}}]}),
            "0/1",
            "Signal:9",
            "0",
        ),
        (
            "completed",
            one.clone(),
            json!({"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
            "0/1",
            "Completed",
            "0",
        ),
        (
            "half done, not ready",
            two.clone(),
            json!({"phase": "Running", "containerStatuses": [
            {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, running.clone()]}),
            "1/2",
            "NotReady",
            "0",
        ),
        (
            "half done, ready",
            two.clone(),
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
            {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}, running.clone()]}),
            "1/2",
            "Running",
            "0",
        ),
        (
            "done and failed",
            two.clone(),
            json!({"phase": "Running", "containerStatuses": [
            {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}},
            {"state": {"terminated": {"reason": "Error", "exitCode": 1}}}]}),
            "0/2",
            "Error",
            "0",
        ),
        (
            "init first",
            init.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            "0/1",
            "Init:0/2",
            "0",
        ),
        (
            "init second",
            init.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}],
            "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}),
            "0/1",
            "Init:1/2",
            "0",
        ),
        (
            "init error",
            init.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"reason": "Error", "exitCode": 1}}}]}),
            "0/1",
            "Init:Error",
            "2",
        ),
        (
            "init crash",
            init.clone(),
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "0/1",
            "Init:CrashLoopBackOff",
            "0",
        ),
        (
            "initialised",
            init,
            json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"terminated": {"exitCode": 0}}}],
            "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}),
            "0/1",
            "PodInitializing",
            "0",
        ),
        (
            "sidecar",
            sidecar,
            json!({"phase": "Running", "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [running]}),
            "2/2",
            "Running",
            "1",
        ),
    ] {
        let cells = cells("", "pods", &pod(spec, status));
        assert_eq!(
            cells[1..5],
            [json!(ready), json!(reason), json!(restarts), json!("60m")],
            "{name}"
        );
    }
}

#[test]
fn pods_going_and_wide() {
    let mut object = pod(
        json!({"containers": [{}], "nodeName": "n", "readinessGates": [{"conditionType": "x"}]}),
        json!({"phase": "Running", "podIPs": [{"ip": "10.88.0.2"}]}),
    );
    assert_eq!(
        cells("", "pods", &object)[5..],
        [
            json!("10.88.0.2"),
            json!("n"),
            json!("<none>"),
            json!("0/1")
        ]
    );
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(cells("", "pods", &object)[2], "Terminating");
    object["status"]["phase"] = "Succeeded".into();
    assert_eq!(cells("", "pods", &object)[2], "Succeeded");
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn other_kinds() {
    let metadata = json!({"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let template =
        json!({"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}});
    for (group, plural, object, wanted) in [
        (
            "apps",
            "deployments",
            json!({"spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1}}),
            json!(["x", "1/3", 2, 1, "60m", "a,b", "i,j", "app=web"]),
        ),
        (
            "apps",
            "replicasets",
            json!({"spec": {"replicas": 3, "template": template, "selector": {}}, "status": {"replicas": 2}}),
            json!(["x", 3, 2, 0, "60m", "a,b", "i,j", "<none>"]),
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "clusterIPs": ["10.96.0.9"], "selector": {"a": "b", "c": "d"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!([
                "x",
                "NodePort",
                "10.96.0.9",
                "<none>",
                "80:30080/TCP,53/UDP",
                "60m",
                "a=b,c=d"
            ]),
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "LoadBalancer"}}),
            json!([
                "x",
                "LoadBalancer",
                "<none>",
                "<pending>",
                "<none>",
                "60m",
                "<none>"
            ]),
        ),
        (
            "",
            "nodes",
            json!({"spec": {"unschedulable": true}, "status": {
            "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
            "nodeInfo": {"kubeletVersion": "v1", "kernelVersion": "6.18", "architecture": "amd64"}}}),
            json!([
                "x",
                "Ready,SchedulingDisabled",
                "<none>",
                "60m",
                "v1",
                "1.2.3.4",
                "<none>",
                "<unknown>",
                "6.18 (amd64)",
                "<unknown>"
            ]),
        ),
        (
            "",
            "events",
            json!({"type": "Normal", "reason": "Pulled", "message": " m ", "count": 2,
            "firstTimestamp": "2026-01-01T00:59:00Z", "lastTimestamp": "2026-01-01T00:59:50Z",
            "source": {"component": "kubelet", "host": "n"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}}),
            json!([
                "10s",
                "Normal",
                "Pulled",
                "pod/p",
                "spec.containers{a}",
                "kubelet, n",
                "m",
                "60s",
                2,
                "x"
            ]),
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["a"]}, {"addresses": ["b"]}, {"addresses": ["c"]}, {"addresses": ["d"]}]}),
            json!(["x", "IPv4", "80", "a,b,c + 1 more...", "60m"]),
        ),
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"holderIdentity": "h"}}),
            json!(["x", "h", "60m"]),
        ),
        (
            "",
            "namespaces",
            json!({"status": {"phase": "Active"}}),
            json!(["x", "Active", "60m"]),
        ),
        (
            "",
            "secrets",
            json!({"type": "Opaque", "data": {"a": "", "b": ""}}),
            json!(["x", "Opaque", 2, "60m"]),
        ),
        (
            "",
            "configmaps",
            json!({"data": {"a": ""}, "binaryData": {"b": ""}}),
            json!(["x", 2, "60m"]),
        ),
        ("", "serviceaccounts", json!({}), json!(["x", "60m"])),
    ] {
        let mut object = object;
        object["metadata"] = metadata.clone();
        assert_eq!(
            Value::Array(cells(group, plural, &object)),
            wanted,
            "{plural}"
        );
    }
}

#[test]
fn rows_carry_what_is_asked() {
    let pods = find("", "v1", "pods").unwrap();
    let object = pod(json!({}), json!({"phase": "Succeeded"}));
    let with = |include| {
        table(
            pods,
            std::slice::from_ref(&object),
            &json!({"resourceVersion": "7"}),
            include,
            now(),
        )
    };
    let metadata = with(Include::Metadata);
    assert_eq!(metadata["metadata"]["resourceVersion"], "7");
    assert_eq!(
        metadata["rows"][0]["object"]["kind"],
        "PartialObjectMetadata"
    );
    assert_eq!(metadata["rows"][0]["conditions"][0]["type"], "Completed");
    assert_eq!(with(Include::Object)["rows"][0]["object"], object);
    assert!(with(Include::None)["rows"][0]["object"].is_null());
}
