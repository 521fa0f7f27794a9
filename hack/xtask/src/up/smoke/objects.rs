//! Step d, third part: scaling, rolling, patching, and every form of output.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::tour::{Tour, expect};
use super::{Step, step};

pub const STEPS: &[Step] = &[
    step("scale --replicas=5 and back", scale),
    step("set image rolls", set_image),
    step("rollout undo", undo),
    step("expose makes a Service that answers", expose),
    step("patch by strategic merge", patch_strategic),
    step("patch by JSON merge", patch_merge),
    step("patch by JSON patch", patch_json),
    step("label", label),
    step("get -w sees changes", watch),
    step("get -o yaml", as_yaml),
    step("get -o json", as_json),
    step("get -o name", as_name),
    step("get -o jsonpath", as_jsonpath),
    step("get -l", by_label),
    step("get --field-selector", by_field),
    step("explain and api-resources", explain),
];

fn scale(tour: &mut Tour) -> Result<()> {
    for replicas in [5_usize, 2] {
        tour.run(&["scale", "deployment/web", &format!("--replicas={replicas}")])?;
        tour.run(&["rollout", "status", "deployment/web", &tour.timeout(60)])?;
        tour.eventually(30, |tour| {
            let pods = tour.pods("app=web")?;
            ensure!(pods.len() == replicas, "{} pods", pods.len());
            Ok(())
        })?;
    }
    Ok(())
}

fn set_image(tour: &mut Tour) -> Result<()> {
    let image = format!("web={}", tour.image("web:2"));
    tour.run(&["set", "image", "deployment/web", &image])?;
    tour.run(&["rollout", "status", "deployment/web", &tour.timeout(90)])?;
    expect_version(tour, "2")
}

fn undo(tour: &mut Tour) -> Result<()> {
    tour.run(&["rollout", "undo", "deployment/web"])?;
    tour.run(&["rollout", "status", "deployment/web", &tour.timeout(90)])?;
    expect_version(tour, "1")
}

fn expect_version(tour: &mut Tour, version: &str) -> Result<()> {
    tour.eventually(30, |tour| {
        let pods = tour.pods("app=web")?;
        ensure!(pods.len() == 2, "{} pods", pods.len());
        for pod in pods {
            let text = tour.shell(&pod, "echo version $WEB_VERSION")?;
            expect(&text, &format!("version {version}"))?;
        }
        Ok(())
    })
}

fn expose(tour: &mut Tour) -> Result<()> {
    let target = "--target-port=8080";
    tour.run(&[
        "expose",
        "deployment/web",
        "--name=exposed",
        "--port=81",
        target,
    ])?;
    let pod = tour.pod("app=web")?;
    tour.eventually(15, |tour| {
        expect(
            &tour.shell(&pod, "curl -sS -m 5 http://exposed:81/")?,
            "Hello from berth.",
        )
    })?;
    tour.run(&["delete", "service", "exposed"]).map(drop)
}

fn patch_strategic(tour: &mut Tour) -> Result<()> {
    // a list merged by its key: the other container's fields stay
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "env": [{"name": "ADDED", "value": "yes"}]}
    ]}}}});
    patch_deployment(tour, "strategic", &patch)?;
    let containers = tour.get(&["deployment", "web"])?;
    let containers = &containers["spec"]["template"]["spec"]["containers"];
    ensure!(
        containers.as_array().map(Vec::len) == Some(1),
        "{containers}"
    );
    let names: Vec<&str> = containers[0]["env"]
        .as_array()
        .context("no env")?
        .iter()
        .filter_map(|e| e["name"].as_str())
        .collect();
    ensure!(
        names.contains(&"ADDED") && names.contains(&"GREETING"),
        "{names:?}"
    );
    tour.run(&["rollout", "status", "deployment/web", &tour.timeout(90)])
        .map(drop)
}

fn patch_merge(tour: &mut Tour) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {"tour/merge": "1"}}});
    patch_deployment(tour, "merge", &patch)?;
    let patch = json!({"metadata": {"annotations": {"tour/merge": null}}});
    let before = annotation(tour)?;
    patch_deployment(tour, "merge", &patch)?;
    ensure!(
        before == "1" && annotation(tour)?.is_empty(),
        "null did not delete"
    );
    Ok(())
}

fn patch_json(tour: &mut Tour) -> Result<()> {
    let add = json!([{"op": "add", "path": "/metadata/annotations/tour~1merge", "value": "2"}]);
    patch_deployment(tour, "json", &add)?;
    ensure!(annotation(tour)? == "2", "not added");
    let test = json!([{"op": "test", "path": "/metadata/annotations/tour~1merge", "value": "3"}]);
    let text = test.to_string();
    tour.refused(
        &["patch", "deployment", "web", "--type=json", "-p", &text],
        "",
    )
    .map(drop)
}

fn annotation(tour: &Tour) -> Result<String> {
    tour.run(&[
        "get",
        "deployment",
        "web",
        "-o",
        "jsonpath={.metadata.annotations.tour/merge}",
    ])
}

fn patch_deployment(tour: &Tour, kind: &str, patch: &Value) -> Result<()> {
    let (kind, patch) = (format!("--type={kind}"), patch.to_string());
    let text = tour.run(&["patch", "deployment", "web", &kind, "-p", &patch])?;
    expect(&text, "deployment.apps/web patched")
}

fn label(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    tour.run(&["label", "pod", &pod, "tour=yes"])?;
    expect(
        &tour.run(&["get", "pods", "-l", "tour=yes", "-o", "name"])?,
        &pod,
    )?;
    tour.run(&["label", "pod", &pod, "tour-"])?;
    let left = tour.run(&["get", "pods", "-l", "tour=yes", "-o", "name"])?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}

fn watch(tour: &mut Tour) -> Result<()> {
    tour.run(&["create", "configmap", "watched", "--from-literal=step=1"])?;
    let mut watching = tour
        .command(&[
            "get",
            "configmap",
            "watched",
            "-w",
            "-o",
            "jsonpath={.data.step}{\"\\n\"}",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = watching.stdout.take().context("no pipe")?;
    let mut lines = BufReader::new(out).lines();
    let result = (|| {
        let first = lines.next().context("the watch ended")??;
        ensure!(first == "1", "{first}");
        let patch = json!({"data": {"step": "2"}}).to_string();
        tour.run(&[
            "patch",
            "configmap",
            "watched",
            "--type=merge",
            "-p",
            &patch,
        ])?;
        let second = lines.next().context("the watch ended")??;
        ensure!(second == "2", "{second}");
        Ok(())
    })();
    watching.kill()?;
    watching.wait()?;
    tour.run(&["delete", "configmap", "watched"])?;
    result
}

fn as_yaml(tour: &mut Tour) -> Result<()> {
    let text = tour.run(&["get", "deployment", "web", "-o", "yaml"])?;
    for part in [
        "apiVersion: apps/v1",
        "kind: Deployment",
        "  name: web",
        "status:",
    ] {
        expect(&text, part)?;
    }
    Ok(())
}

fn as_json(tour: &mut Tour) -> Result<()> {
    let list = tour.get(&["pods", "-l", "app=web"])?;
    ensure!(
        list["kind"] == "List" && list["items"].as_array().map(Vec::len) == Some(2),
        "{list}"
    );
    ensure!(list["items"][0]["kind"] == "Pod", "items have no kind");
    Ok(())
}

fn as_name(tour: &mut Tour) -> Result<()> {
    let text = tour.run(&["get", "deployment,service", "web", "-o", "name"])?;
    ensure!(text == "deployment.apps/web\nservice/web\n", "{text}");
    Ok(())
}

fn as_jsonpath(tour: &mut Tour) -> Result<()> {
    let path = "jsonpath={.spec.ports[?(@.name==\"http\")].port}";
    let text = tour.run(&["get", "service", "web", "-o", path])?;
    ensure!(text == "80", "{text}");
    Ok(())
}

fn by_label(tour: &mut Tour) -> Result<()> {
    let count = |selector: &str| {
        let text = tour.run(&["get", "pods", "-l", selector, "-o", "name"])?;
        anyhow::Ok(text.lines().count())
    };
    ensure!(count("app=web")? == 2, "equality");
    ensure!(count("app in (web, other)")? == 2, "a set");
    ensure!(count("app=web,pod-template-hash")? == 2, "existence");
    ensure!(count("app notin (web)")? == 0, "exclusion");
    Ok(())
}

fn by_field(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let selector = format!("--field-selector=metadata.name={pod},status.phase=Running");
    let text = tour.run(&["get", "pods", &selector, "-o", "name"])?;
    ensure!(text.trim() == format!("pod/{pod}"), "{text}");
    let node = format!(
        "--field-selector=spec.nodeName={}",
        super::serve::node_name()?
    );
    let text = tour.run(&["get", "pods", "-A", &node, "-o", "name"])?;
    ensure!(text.lines().count() >= 2, "{text}");
    Ok(())
}

fn explain(tour: &mut Tour) -> Result<()> {
    expect(
        &tour.run(&["explain", "pod.spec.containers"])?,
        "containers",
    )?;
    let text = tour.run(&["api-resources"])?;
    for row in ["deployments", "endpointslices", "configmaps"] {
        expect(&text, row)?;
    }
    Ok(())
}
