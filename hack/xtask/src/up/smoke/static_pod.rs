//! Step c: a static pod through the kubelet, without an API server.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_proto::cri as v1;

use super::tour::Tour;
use super::{Step, step};
use crate::process;

pub const STEPS: &[Step] = &[
    step("static: the kubelet runs a pod from a file", runs),
    step("static: its container is restarted when it ends", restarts),
    step("static: the pod goes with its file", goes),
];

const ALIVE: &str = "apiVersion: v1
kind: Pod
metadata:
  name: standing
  namespace: default
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    command: [sh, -c, \"echo standing; trap 'exit 0' TERM; while :; do sleep 0.1; done\"]
";

fn runs(tour: &mut Tour) -> Result<()> {
    let folder = tour.data.join("manifests");
    fs::create_dir_all(&folder)?;
    let manifest = ALIVE.replace("IMAGE", &tour.image("busybox:latest"));
    fs::write(folder.join("standing.yaml"), manifest)?;
    let kubelet = tour.daemon("kubelet", &[])?;
    tour.halves.push(kubelet);
    tour.eventually(20, |tour| {
        let containers = containers(tour, Some(v1::ContainerState::ContainerRunning))?;
        ensure!(containers.len() == 1, "{} containers run", containers.len());
        Ok(())
    })
}

fn restarts(tour: &mut Tour) -> Result<()> {
    let before = containers(tour, Some(v1::ContainerState::ContainerRunning))?;
    let first = before.first().context("nothing runs")?.clone();
    let cri = tour.cri.as_ref().context("the CRI server does not run")?;
    let request = v1::StopContainerRequest {
        container_id: first.clone(),
        timeout: 0,
    };
    cri.wait(cri.pods.clone().stop_container(request))?;
    tour.eventually(20, |tour| {
        let now = containers(tour, Some(v1::ContainerState::ContainerRunning))?;
        ensure!(now.len() == 1 && now[0] != first, "not restarted");
        Ok(())
    })
}

fn goes(tour: &mut Tour) -> Result<()> {
    fs::remove_file(tour.data.join("manifests/standing.yaml"))?;
    let gone = tour.eventually(45, |tour| {
        let left = containers(tour, Some(v1::ContainerState::ContainerRunning))?;
        ensure!(left.is_empty(), "{} containers run", left.len());
        Ok(())
    });
    // the next steps start the whole in one process: the halves end here
    tour.cri = None;
    for mut half in tour.halves.drain(..).rev() {
        half.signal(signal_hook::consts::SIGINT)?;
        half.wait(Duration::from_secs(60))?;
    }
    // a bridge stays by CNI's custom: nobody but its administrator knows who uses it
    process::output(Command::new("ip").args(["link", "delete", "berth0"]))?;
    gone
}

/// Ids of the containers in a state.
fn containers(tour: &Tour, state: Option<v1::ContainerState>) -> Result<Vec<String>> {
    let cri = tour.cri.as_ref().context("the CRI server does not run")?;
    let filter = v1::ContainerFilter {
        state: state.map(|state| v1::ContainerStateValue {
            state: state.into(),
        }),
        ..Default::default()
    };
    let request = v1::ListContainersRequest {
        filter: Some(filter),
    };
    let answer = cri.wait(cri.pods.clone().list_containers(request))?;
    Ok(answer
        .containers
        .into_iter()
        .map(|container| container.id)
        .collect())
}
