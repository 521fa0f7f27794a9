//! Step d, last part: what outlives the daemon, and that nothing outlives its end.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM};

use super::tour::{Tour, expect};
use super::{Step, step};

pub const STEPS: &[Step] = &[
    step(
        "apply of 30 pods at once: 30 Running, no container twice",
        thirty,
    ),
    step("a completed pod of restartPolicy Never", completes),
    step(
        "SIGKILL of berth: pods keep running and logging",
        killed_daemon,
    ),
    step(
        "the next start adopts them; kubectl sees them within 5 s",
        adopted,
    ),
    step("no restart count changed", no_restarts),
    step("every acknowledged write survived SIGKILL", store_survives),
    step(
        "the completed pod stays completed over a restart of everything",
        stays_completed,
    ),
    step(
        "SIGTERM leaves the pods running, to be adopted",
        terminated_daemon,
    ),
    step("delete, and everything is gone", delete),
    step(
        "SIGINT removes every effect and keeps the data",
        interrupted,
    ),
];

fn thirty(tour: &mut Tour) -> Result<()> {
    let image = tour.image("busybox:latest");
    let manifest: Vec<String> = (0..30)
        .map(|n| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: many-{n}, labels: {{tour: many}}}}\n\
                 spec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    \
                 image: {image}\n    \
                 command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 1; done\"]\n"
            )
        })
        .collect();
    tour.apply(&manifest.join("---\n"))?;
    tour.eventually(90, |tour| {
        let selector = "--field-selector=status.phase=Running";
        let text = tour.run(&["get", "pods", "-l", "tour=many", selector, "-o", "name"])?;
        ensure!(text.lines().count() == 30, "{} run", text.lines().count());
        Ok(())
    })?;
    let containers = containers_running("trap 'exit 0' TERM; while :; do sleep 1; done")?;
    ensure!(containers == 30, "{containers} containers for 30 pods");
    let wait = tour.timeout(90);
    tour.run(&["delete", "pods", "-l", "tour=many", &wait])
        .map(drop)
}

fn completes(tour: &mut Tour) -> Result<()> {
    let image = tour.image("busybox:latest");
    tour.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: once}}\nspec:\n  restartPolicy: Never\n  \
         containers:\n  - {{name: main, image: {image}, command: [sh, -c, \"echo done once\"]}}\n"
    ))?;
    tour.eventually(20, |tour| {
        expect(
            &tour.run(&["get", "pod", "once", "-o", "jsonpath={.status.phase}"])?,
            "Succeeded",
        )
    })
}

fn killed_daemon(tour: &mut Tour) -> Result<()> {
    let image = tour.image("busybox:latest");
    tour.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: ticking}}\nspec:\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {image}\n    \
         command: [sh, -c, \"while :; do date +%s.%N; sleep 0.2; done\"]\n"
    ))?;
    tour.run(&[
        "wait",
        "--for=condition=Ready",
        "pod/ticking",
        &tour.timeout(20),
    ])?;
    let log = log_of("ticking")?;
    // acknowledged right before the kill
    for n in 0..20 {
        let name = format!("written-{n}");
        tour.run(&[
            "create",
            "configmap",
            &name,
            &format!("--from-literal=n={n}"),
        ])?;
    }
    let mut node = tour.node.take().context("berth does not run")?;
    node.signal(SIGKILL)?;
    node.wait(Duration::from_secs(10))?;
    let size = fs::metadata(&log)?.len();
    tour.eventually(10, |_| {
        ensure!(
            fs::metadata(&log)?.len() > size,
            "the pod's log does not grow"
        );
        Ok(())
    })
}

fn adopted(tour: &mut Tour) -> Result<()> {
    let started = Instant::now();
    tour.node = Some(tour.daemon("up", &[])?);
    tour.eventually(5, |tour| {
        let text = tour.run(&["get", "pod", "ticking"])?;
        expect(&text, "Running")
    })?;
    println!(
        "      seen again after {:.2} s",
        started.elapsed().as_secs_f32()
    );
    // through the whole chain, into the very container
    tour.eventually(15, |tour| {
        expect(&tour.shell("ticking", "echo inside")?, "inside")
    })
}

fn no_restarts(tour: &mut Tour) -> Result<()> {
    let counts = restart_counts(tour)?;
    // long enough for a kubelet that forgot its containers to start them again
    std::thread::sleep(tour.limit(3));
    let later = restart_counts(tour)?;
    ensure!(counts == later, "{counts:?} became {later:?}");
    ensure!(counts.get("ticking") == Some(&0), "{counts:?}");
    Ok(())
}

fn store_survives(tour: &mut Tour) -> Result<()> {
    for n in 0..20 {
        let name = format!("written-{n}");
        let value = tour.run(&["get", "configmap", &name, "-o", "jsonpath={.data.n}"])?;
        ensure!(value == n.to_string(), "{name} holds {value:?}");
        tour.run(&["delete", "configmap", &name])?;
    }
    Ok(())
}

fn stays_completed(tour: &mut Tour) -> Result<()> {
    let status = "jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}";
    let text = tour.run(&["get", "pod", "once", "-o", status])?;
    ensure!(text == "Succeeded 0", "{text}");
    expect(&tour.run(&["logs", "once"])?, "done once")
}

fn terminated_daemon(tour: &mut Tour) -> Result<()> {
    let log = log_of("ticking")?;
    let mut node = tour.node.take().context("berth does not run")?;
    node.signal(SIGTERM)?;
    node.wait(tour.limit(20))?;
    let size = fs::metadata(&log)?.len();
    tour.eventually(10, |_| {
        ensure!(
            fs::metadata(&log)?.len() > size,
            "the pod's log does not grow"
        );
        Ok(())
    })?;
    tour.node = Some(tour.daemon("up", &[])?);
    tour.eventually(15, |tour| {
        expect(&tour.shell("ticking", "echo inside")?, "inside")
    })?;
    ensure!(
        restart_counts(tour)?.get("ticking") == Some(&0),
        "restarted"
    );
    Ok(())
}

fn delete(tour: &mut Tour) -> Result<()> {
    let wait = tour.timeout(60);
    tour.run(&[
        "delete",
        "deployment/web",
        "service/web",
        "configmap/web",
        &wait,
    ])?;
    tour.run(&["delete", "pods", "--all", &wait])?;
    tour.eventually(30, |tour| {
        let left = tour.run(&["get", "pods,deployments,replicasets", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "left: {left}");
        Ok(())
    })
}

fn interrupted(tour: &mut Tour) -> Result<()> {
    let image = tour.image("busybox:latest");
    tour.run(&[
        "run",
        "remaining",
        "--image",
        &image,
        "--restart=Never",
        "--",
        "sleep",
        "1000",
    ])?;
    tour.run(&[
        "wait",
        "--for=condition=Ready",
        "pod/remaining",
        &tour.timeout(20),
    ])?;
    let uid = tour.run(&["get", "pod", "remaining", "-o", "jsonpath={.metadata.uid}"])?;
    let mut node = tour.node.take().context("berth does not run")?;
    node.signal(SIGINT)?;
    node.wait(tour.limit(30))?;
    ensure!(tour.data.join("admin.conf").exists(), "the data is gone");
    let monitors = processes()?.values().filter(|p| p.is_monitor()).count();
    ensure!(monitors == 0, "{monitors} monitors still run");
    let networks = fs::read_dir(tour.data.join("net.d"))?.count();
    let logs = format!("/var/log/pods/default_remaining_{uid}");
    ensure!(!fs::exists(&logs)?, "`{logs}` is still there");
    ensure!(networks == 0, "the default network's file is still there");
    Ok(())
}

fn restart_counts(tour: &Tour) -> Result<BTreeMap<String, u64>> {
    let list = tour.get(&["pods"])?;
    let pods = list["items"].as_array().context("no list of pods")?;
    let count = |pod: &serde_json::Value| {
        let name = pod["metadata"]["name"].as_str()?.to_owned();
        Some((
            name,
            pod["status"]["containerStatuses"][0]["restartCount"].as_u64()?,
        ))
    };
    Ok(pods.iter().filter_map(count).collect())
}

/// The log file of a pod's first container attempt.
fn log_of(pod: &str) -> Result<std::path::PathBuf> {
    let prefix = format!("default_{pod}_");
    let mut folders = fs::read_dir("/var/log/pods")?
        .flatten()
        .map(|entry| entry.path());
    let folder = folders.find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    });
    Ok(folder
        .with_context(|| format!("no log folder of {pod}"))?
        .join("main/0.log"))
}

/// How many containers run this command. The parent of a container's first process is its
/// monitor; its forks, which for a moment have the same command line, have other parents.
fn containers_running(command: &str) -> Result<usize> {
    let all = processes()?;
    let fits = |process: &&Process| {
        process.command.contains(command)
            && all.get(&process.parent).is_some_and(Process::is_monitor)
    };
    Ok(all.values().filter(fits).count())
}

struct Process {
    parent: u32,
    command: String,
}

impl Process {
    /// Whether it is the monitor of one of the tour's pods.
    fn is_monitor(&self) -> bool {
        let program = self.command.split('\0').next().unwrap_or_default();
        program.ends_with("berth-monitor") && self.command.contains("/run/berth/")
    }
}

/// Every process that is there, by its number.
fn processes() -> Result<BTreeMap<u32, Process>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let status = read("status");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let Some(parent) = parent.and_then(|text| text.trim().parse().ok()) else {
            continue; // it has ended meanwhile
        };
        let command = read("cmdline");
        found.insert(pid, Process { parent, command });
    }
    Ok(found)
}
