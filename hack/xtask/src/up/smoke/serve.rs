//! Step d, first part: the node, the Deployment behind its Service, the page.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::tour::{Tour, expect, source};
use super::{Step, step};
use crate::images;

pub const STEPS: &[Step] = &[
    step("up: `berth up` brings the node to Ready", node_ready),
    step("get nodes: this machine, Ready", get_nodes),
    step("apply -f examples/web.yaml", apply),
    step("rollout status", rollout_status),
    step("get pods -o wide: real addresses on the real node", wide),
    step(
        "HTTP 200 with the ConfigMap's page from each pod's address",
        page_from_host,
    ),
    step("HTTP from pod to pod", pod_to_pod),
    step(
        "curl http://web from a pod: Service and DNS",
        by_service_name,
    ),
    step(
        "the `kubernetes` Service answers in a pod",
        kubernetes_service,
    ),
    step(
        "environment from the ConfigMap and the downward API",
        environment,
    ),
    step("the init container ran before the server", init_container),
    step("the sandbox is what was asked for", sandbox),
    step(
        "apply of one pod to Ready, image present (printed)",
        pod_ready,
    ),
];

fn node_ready(tour: &mut Tour) -> Result<()> {
    let started = Instant::now();
    tour.node = Some(tour.daemon("up", &[])?);
    tour.eventually(60, |tour| {
        let nodes = tour.get(&["nodes"])?;
        let conditions = nodes["items"][0]["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
        let ready = ready.context("the node has no Ready condition")?;
        ensure!(ready["status"] == "True", "{ready}");
        Ok(())
    })?;
    println!(
        "      `berth up` to node Ready: {:.2} s",
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

fn get_nodes(tour: &mut Tour) -> Result<()> {
    let text = tour.run(&["get", "nodes"])?;
    expect(&text, " Ready ")?;
    expect(&text, &node_name()?)
}

fn apply(tour: &mut Tour) -> Result<()> {
    let manifest = source("examples/web.yaml")?.replace("127.0.0.1:5000", &tour.registry);
    let text = tour.apply(&manifest)?;
    for line in [
        "configmap/web created",
        "deployment.apps/web created",
        "service/web created",
    ] {
        expect(&text, line)?;
    }
    Ok(())
}

fn rollout_status(tour: &mut Tour) -> Result<()> {
    let text = tour.run(&["rollout", "status", "deployment/web", &tour.timeout(60)])?;
    expect(&text, "successfully rolled out")
}

fn wide(tour: &mut Tour) -> Result<()> {
    let text = tour.run(&["get", "pods", "-l", "app=web", "-o", "wide"])?;
    let node = node_name()?;
    let rows: Vec<&str> = text.lines().skip(1).collect();
    ensure!(rows.len() == 2, "{text}");
    for row in rows {
        expect(row, "1/1")?;
        expect(row, "Running")?;
        expect(row, &node)?;
    }
    let addresses = addresses(tour)?;
    ensure!(
        addresses.len() == 2 && addresses[0] != addresses[1],
        "{addresses:?}"
    );
    Ok(())
}

fn page_from_host(tour: &mut Tour) -> Result<()> {
    for address in addresses(tour)? {
        let mut answer = images::agent()
            .get(format!("http://{address}:8080/"))
            .call()?;
        ensure!(answer.status() == 200, "{}", answer.status());
        expect(&answer.body_mut().read_to_string()?, "Hello from berth.")?;
    }
    Ok(())
}

fn pod_to_pod(tour: &mut Tour) -> Result<()> {
    let pods = tour.pods("app=web")?;
    let address = addresses(tour)?.pop().context("no address")?;
    let script = format!("curl -sS -m 10 http://{address}:8080/");
    expect(&tour.shell(&pods[0], &script)?, "Hello from berth.")
}

fn by_service_name(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    tour.eventually(15, |tour| {
        for name in ["web", "web.default.svc.cluster.local"] {
            let page = tour.shell(&pod, &format!("curl -sS -m 5 http://{name}"))?;
            expect(&page, "Hello from berth.")?;
        }
        Ok(())
    })
}

fn kubernetes_service(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let script = "curl -sS -m 10 --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
                  https://kubernetes.default.svc/version; echo; \
                  echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT";
    let text = tour.shell(&pod, script)?;
    expect(&text, "gitVersion")?;
    expect(&text, "10.96.0.1:443")
}

fn environment(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let text = tour.shell(&pod, "env")?;
    for line in ["GREETING=moin", "MEMORY_LIMIT=67108864", "WEB_VERSION=1"] {
        expect(&text, line)?;
    }
    let address = tour.run(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"])?;
    expect(&text, &format!("POD_IP={address}"))?;
    expect(&text, &format!("POD_NAME={pod}"))
}

fn init_container(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    expect(
        &tour.shell(&pod, "cat /tmp/prepared")?,
        &format!("prepared for {pod}"),
    )?;
    let reason = "jsonpath={.status.initContainerStatuses[0].state.terminated.reason}";
    expect(&tour.run(&["get", "pod", &pod, "-o", reason])?, "Completed")
}

fn sandbox(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let status = tour.shell(&pod, "cat /proc/1/status")?;
    for (field, value) in [
        ("Uid:", "101\t101\t101\t101"),
        ("Gid:", "101\t101\t101\t101"),
        ("CapEff:", "0000000000000000"),
        ("CapBnd:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        expect(&status, &format!("{field}\t{value}"))?;
    }
    let text = tour.shell(
        &pod,
        "touch /usr/x 2>&1 || true; grep -c ' /proc/keys ' /proc/self/mountinfo",
    )?;
    expect(&text, "Read-only file system")?;
    ensure!(
        text.trim_end().ends_with('1'),
        "/proc/keys is not masked: {text:?}"
    );
    expect(&tour.shell(&pod, "hostname")?, &pod)
}

fn pod_ready(tour: &mut Tour) -> Result<()> {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: timed}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: {}}}\n",
        tour.image("web:1")
    );
    let started = Instant::now();
    tour.apply(&manifest)?;
    tour.run(&[
        "wait",
        "--for=condition=Ready",
        "pod/timed",
        &tour.timeout(20),
    ])?;
    println!(
        "      apply of a pod to Ready: {:.2} s",
        started.elapsed().as_secs_f32()
    );
    tour.run(&["delete", "pod", "timed", &tour.timeout(30)])?;
    Ok(())
}

/// Addresses of the web pods.
pub fn addresses(tour: &Tour) -> Result<Vec<String>> {
    let path = "jsonpath={range .items[*]}{.status.podIP}{\"\\n\"}{end}";
    let text = tour.run(&["get", "pods", "-l", "app=web", "-o", path])?;
    let found: Vec<String> = text.lines().map(str::to_owned).collect();
    for address in &found {
        address
            .parse::<std::net::IpAddr>()
            .with_context(|| format!("address {address:?}"))?;
    }
    Ok(found)
}

/// The node's name: this machine's, in lower case.
pub fn node_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim().to_lowercase())
}
