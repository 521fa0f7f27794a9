//! Step d, fourth part: what goes wrong in pods, and how it is told.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::tour::{Tour, expect};
use super::{Step, step};

pub const STEPS: &[Step] = &[
    step(
        "a container that keeps failing: CrashLoopBackOff at 10 s, then 20 s",
        crash_loop,
    ),
    step("describe pod: BackOff", backoff_event),
    step("a failing liveness probe restarts the container", liveness),
    step(
        "a failing readiness probe takes Ready and the endpoint away",
        readiness,
    ),
    step("an image that does not exist: ErrImagePull", image_error),
    step(
        "then ImagePullBackOff with the registry's reason",
        image_backoff,
    ),
    step(
        "a field that is not honoured: UnsupportedField with its path",
        unsupported,
    ),
    step("describe pod: Killing", killing_event),
];

/// A pod of one busybox container with these further lines at the container.
fn pod(tour: &Tour, name: &str, script: &str, lines: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{tour: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {}\n    \
         command: [sh, -c, \"{script}\"]\n{lines}",
        tour.image("busybox:latest")
    )
}

/// Waits forever, and ends at once when told to.
const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn status(tour: &Tour, name: &str) -> Result<Value> {
    let pod = tour.get(&["pod", name])?;
    Ok(pod["status"]["containerStatuses"][0].clone())
}

fn crash_loop(tour: &mut Tour) -> Result<()> {
    tour.apply(&pod(tour, "failing", "echo about to fail; exit 9", ""))?;
    for wait in ["10s", "20s"] {
        tour.eventually(45, |tour| {
            let waiting = status(tour, "failing")?["state"]["waiting"].clone();
            ensure!(waiting["reason"] == "CrashLoopBackOff", "{waiting}");
            expect(
                waiting["message"].as_str().unwrap_or_default(),
                &format!("back-off {wait} "),
            )
        })?;
    }
    let last = status(tour, "failing")?["lastState"]["terminated"].clone();
    ensure!(last["exitCode"] == 9 && last["reason"] == "Error", "{last}");
    expect(&tour.run(&["get", "pod", "failing"])?, "CrashLoopBackOff")
}

fn backoff_event(tour: &mut Tour) -> Result<()> {
    let text = tour.run(&["describe", "pod", "failing"])?;
    expect(&text, "BackOff")?;
    expect(&text, "Back-off restarting failed container")?;
    tour.run(&["delete", "pod", "failing", &tour.timeout(30)])
        .map(drop)
}

fn liveness(tour: &mut Tour) -> Result<()> {
    let probe = "    livenessProbe: {exec: {command: [\"false\"]}, periodSeconds: 1, failureThreshold: 2}\n";
    tour.apply(&pod(tour, "unlively", STAY, probe))?;
    tour.eventually(30, |tour| {
        let count = status(tour, "unlively")?["restartCount"]
            .as_u64()
            .unwrap_or_default();
        ensure!(count >= 1, "not restarted");
        Ok(())
    })?;
    let text = tour.run(&["describe", "pod", "unlively"])?;
    expect(&text, "Liveness probe failed")?;
    tour.run(&["delete", "pod", "unlively", &tour.timeout(30)])
        .map(drop)
}

fn readiness(tour: &mut Tour) -> Result<()> {
    let probe = "    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}\n";
    tour.apply(&pod(
        tour,
        "unready",
        &format!("touch /tmp/ready; {STAY}"),
        probe,
    ))?;
    tour.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: unready}\nspec:\n  \
         selector: {tour: unready}\n  ports: [{port: 80}]\n",
    )?;
    let expect_endpoint = |tour: &mut Tour, wanted: bool| {
        tour.eventually(20, |tour| {
            let ready = status(tour, "unready")?["ready"] == wanted;
            let selector = "kubernetes.io/service-name=unready";
            let slices = tour.get(&["endpointslices", "-l", selector])?;
            let endpoints = slices["items"][0]["endpoints"].as_array();
            let served =
                endpoints.is_some_and(|all| all.iter().any(|e| e["conditions"]["ready"] == true));
            ensure!(ready && served == wanted, "{slices}");
            Ok(())
        })
    };
    expect_endpoint(tour, true)?;
    tour.shell("unready", "rm /tmp/ready")?;
    expect_endpoint(tour, false)?;
    tour.run(&[
        "delete",
        "pod/unready",
        "service/unready",
        &tour.timeout(30),
    ])
    .map(drop)
}

fn absent(tour: &Tour) -> String {
    pod(tour, "imageless", STAY, "").replace("busybox:latest", "absent:1")
}

fn image_error(tour: &mut Tour) -> Result<()> {
    tour.apply(&absent(tour))?;
    tour.eventually(20, |tour| {
        let events = tour.run(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=imageless",
        ])?;
        expect(&events, "ErrImagePull")
    })
}

fn image_backoff(tour: &mut Tour) -> Result<()> {
    let message = tour.eventually(30, |tour| {
        let waiting = status(tour, "imageless")?["state"]["waiting"].clone();
        ensure!(waiting["reason"] == "ImagePullBackOff", "{waiting}");
        Ok(waiting["message"].to_string())
    })?;
    expect(&message, "absent:1")?;
    let text = tour.run(&["describe", "pod", "imageless"])?.to_lowercase();
    ensure!(
        text.contains("unknown") || text.contains("not found"),
        "no reason in {text}"
    );
    tour.run(&["delete", "pod", "imageless", &tour.timeout(30)])
        .map(drop)
}

fn unsupported(tour: &mut Tour) -> Result<()> {
    let manifest = pod(tour, "unsupported", STAY, "  hostUsers: false\n");
    tour.apply(&manifest)?;
    tour.eventually(10, |tour| {
        let pod = tour.get(&["pod", "unsupported"])?;
        ensure!(pod["status"]["phase"] == "Failed", "{}", pod["status"]);
        ensure!(
            pod["status"]["reason"] == "UnsupportedField",
            "{}",
            pod["status"]
        );
        expect(
            pod["status"]["message"].as_str().unwrap_or_default(),
            "spec.hostUsers",
        )
    })?;
    tour.run(&["delete", "pod", "unsupported", &tour.timeout(30)])
        .map(drop)
}

fn killing_event(tour: &mut Tour) -> Result<()> {
    tour.apply(&pod(tour, "killed", STAY, ""))?;
    tour.run(&[
        "wait",
        "--for=condition=Ready",
        "pod/killed",
        &tour.timeout(20),
    ])?;
    tour.run(&["delete", "pod", "killed", &tour.timeout(30)])?;
    tour.eventually(10, |tour| {
        let selector = "--field-selector=involvedObject.name=killed,reason=Killing";
        let events = tour.get(&["events", selector])?;
        let first = events["items"]
            .as_array()
            .and_then(|all| all.first())
            .context("no event")?;
        expect(
            first["message"].as_str().unwrap_or_default(),
            "Stopping container main",
        )
    })
}
