//! What a container sees of its pod's settings, and what its end tells the user.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use berth_kubelet::Config;
use berth_test_node::api::ApiServer;
use berth_test_node::{Kubelet, runs, test_kubelet, until};
use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-node");
const NOTHING: Value = Value::Null;

async fn api_server(kubelet: &mut Kubelet) -> Result<ApiServer> {
    let dir = kubelet.node.dir().join("server");
    let api = ApiServer::start(&dir, kubelet.node.image()).await?;
    let host = kubelet.node.dir().join("resolv.conf");
    std::fs::write(
        &host,
        "nameserver 192.0.2.1\nsearch example.org\noptions timeout:3\n",
    )?;
    let kubeconfig = api.kubeconfig();
    let tune = move |config: &mut Config| {
        config.kubeconfig = Some(kubeconfig.clone());
        config.resolv_conf.clone_from(&host);
        config.cluster_dns = vec![IpAddr::from(Ipv4Addr::new(10, 96, 0, 10))];
    };
    kubelet.restart_with(tune).await?;
    until("the node is Ready", async || {
        Ok(api.node_condition("Ready").await? == "True")
    })
    .await?;
    Ok(api)
}

/// The termination message of the pod's one container, which has ended.
async fn last_words(api: &ApiServer, pod: &str, phase: &str) -> Result<String> {
    let status = api.await_phase(pod, phase).await?;
    let main = status.container_statuses.unwrap_or_default().pop();
    let state = main.and_then(|main| main.state).context("it has a state")?;
    Ok(state.terminated.and_then(|t| t.message).unwrap_or_default())
}

#[test]
fn root_resolv_conf_and_hosts_follow_the_pod() {
    test_kubelet("kdns", 62, SERVER, async |mut kubelet| {
        let api = api_server(&mut kubelet).await?;
        let cluster = "search default.svc.cluster.local svc.cluster.local cluster.local \
                       example.org\nnameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search example.org\nnameserver 192.0.2.1\noptions timeout:3\n";
        let own = json!({"nameservers": ["192.0.2.9"], "searches": ["own.example"],
            "options": [{"name": "ndots", "value": "2"}]});
        let mut names = Vec::new();
        for (name, spec, expected) in [
            ("default", json!({"dnsPolicy": "Default"}), node),
            ("first", json!({"dnsPolicy": "ClusterFirst"}), cluster),
            (
                "hosted",
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                node,
            ),
            (
                "both",
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                cluster,
            ),
            (
                "none",
                json!({"dnsPolicy": "None", "dnsConfig": own}),
                "search own.example\nnameserver 192.0.2.9\noptions ndots:2\n",
            ),
        ] {
            let mut spec = spec;
            spec["restartPolicy"] = "Never".into();
            let script = "cat /etc/resolv.conf > /dev/termination-log";
            api.create(name, script, &NOTHING, &spec).await?;
            let seen = last_words(&api, name, "Succeeded").await?;
            ensure!(seen == expected, "{name}: {seen}");
            names.push(name);
        }
        let aliases = json!({"restartPolicy": "Never", "subdomain": "sub",
            "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a", "b"]}]});
        let script = "cat /etc/hosts > /dev/termination-log";
        api.create("hosts", script, &NOTHING, &aliases).await?;
        let seen = last_words(&api, "hosts", "Succeeded").await?;
        for line in [
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n",
            "\thosts.sub.default.svc.cluster.local\thosts\n",
            "\n192.0.2.7\ta\tb\n",
        ] {
            ensure!(seen.contains(line), "{seen}");
        }
        names.push("hosts");
        api.delete(&names).await?;
        kubelet.finish().await
    });
}

#[test]
fn root_a_container_leaves_its_last_words() {
    test_kubelet("kwrd", 63, SERVER, async |mut kubelet| {
        let api = api_server(&mut kubelet).await?;
        let never = json!({"restartPolicy": "Never"});
        let file = json!({"terminationMessagePath": "/tmp/words"});
        api.create("file", "echo -n bye > /tmp/words; exit 3", &file, &never)
            .await?;
        ensure!(last_words(&api, "file", "Failed").await? == "bye");
        let logs = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
        api.create("logs", "echo one; echo two; exit 3", &logs, &never)
            .await?;
        ensure!(last_words(&api, "logs", "Failed").await? == "one\ntwo\n");
        api.create("fine", "echo one; exit 0", &logs, &never)
            .await?;
        ensure!(last_words(&api, "fine", "Succeeded").await?.is_empty());
        api.delete(&["file", "logs", "fine"]).await?;
        kubelet.finish().await
    });
}

#[test]
fn root_a_probe_kills_within_its_own_grace_period() {
    test_kubelet("kgra", 64, SERVER, async |kubelet| {
        // Deaf to SIGTERM in a pod that would wait ten minutes for it.
        let script = "trap '' TERM; while true; do sleep 0.1; done";
        let slow = json!({"terminationGracePeriodSeconds": 600});
        let probe = json!({"exec": {"command": ["ls", "/none"]}, "periodSeconds": 1,
            "failureThreshold": 2, "terminationGracePeriodSeconds": 1});
        let startup = json!({"startupProbe": probe});
        kubelet.put("startup", script, &startup, &slow)?;
        let liveness = json!({"livenessProbe": probe});
        kubelet.put("liveness", script, &liveness, &slow)?;
        for name in ["startup", "liveness"] {
            kubelet.await_main(name, runs(1)).await?;
            let runtime = kubelet.runtime(name).await?;
            let first = runtime.containers.iter().find(|c| c.attempt == 0);
            let first = first.context("the first instance is kept")?;
            ensure!(first.exit_code == 137, "{first:?}");
            let lived = first.finished_at - first.started_at;
            // Two failures a period apart come before the grace period.
            ensure!(lived >= 1_000_000_000, "{name} lived {lived} ns");
        }
        kubelet.finish().await
    });
}
