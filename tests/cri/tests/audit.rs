//! The audit log: what happens is in it once, and what cannot be in it does not happen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_audit::{Entry, Kind};
use berth_proto::cri;
use berth_test_cri::audit;
use berth_test_cri::node::{Pod, test_pod};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);

/// The entry has a record of this kind in which nothing differs, and no digest that can be guessed.
fn compared(entry: &Entry, kind: &str, read_at: &str) -> Result<()> {
    let record = entry.record.as_ref().context("no record")?.get();
    let record: serde_json::Value = serde_json::from_str(record)?;
    ensure!(record["kind"] == kind, "{record:#}");
    ensure!(record["read_at"] == read_at, "{record:#}");
    ensure!(record["mismatches"].is_null(), "{record:#}");
    // What this host's cgroups do not enforce is named, and nothing else is weaker.
    let weak = record["degraded"].as_array().cloned().unwrap_or_default();
    let mut fields = weak.iter().filter_map(|one| one["field"].as_str());
    ensure!(
        fields.all(|field| field.starts_with("limits")),
        "{record:#}"
    );
    let environment = record["fields"]["environment"]["applied"]["environment"].as_str();
    ensure!(
        environment.is_none_or(|digest| digest.starts_with("hmac-sha256:")),
        "{record:#}"
    );
    Ok(())
}

#[test]
fn root_what_happens_is_in_the_log_once() {
    test_pod("audl", 90, SERVER, async |mut pod| {
        let id = pod.start_sleeping().await?;
        let command = ["echo", "hi"];
        ensure!(pod.client.exec(&id, &command, 5).await?.exit_code == 0);
        let limits = cri::LinuxContainerResources {
            cpu_shares: 512,
            ..Default::default()
        };
        let update = cri::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(limits),
            ..Default::default()
        };
        pod.client
            .runtime
            .update_container_resources(update)
            .await?;

        let entries = audit::entries(&pod.node)?;
        let kinds: Vec<Kind> = entries.iter().map(|entry| entry.kind).collect();
        let expected = [Kind::Log, Kind::Pull, Kind::Start, Kind::Exec, Kind::Update];
        ensure!(kinds == expected, "{kinds:?}");
        let [_, pull, start, exec, update] = &entries[..] else {
            unreachable!("counted above");
        };
        ensure!(pull.subject.from == pod.node.image(), "{pull:?}");
        ensure!(pull.subject.image.contains("@sha256:"), "{pull:?}");
        for entry in [start, exec, update] {
            let subject = &entry.subject;
            let names = (subject.namespace.as_str(), subject.pod.as_str());
            ensure!(names == ("default", "pod"), "{entry:?}");
            let container = (subject.container.as_str(), &subject.container_id);
            ensure!(container == ("sleep", &id), "{entry:?}");
            let own = format!("uid 0, pid {}", std::process::id());
            ensure!(subject.who.starts_with(&own), "{entry:?}");
            ensure!(subject.image.contains("sha256:"), "{entry:?}");
        }
        ensure!(exec.subject.command == command, "{exec:?}");
        compared(start, "start", "exec-stop")?;
        compared(exec, "exec", "exec-stop")?;
        compared(update, "update", "running")?;

        pod.node.end_server().await?;
        let report = audit::verify(&pod.node)?;
        ensure!(report.head.last.seq == 5, "the end is signed: {report:?}");
        pod.client = pod.node.start_server().await?;
        ensure!(pod.client.exec(&id, &["true"], 5).await?.exit_code == 0);
        ensure!(audit::verify(&pod.node)?.last == 7, "opened, exec");
        pod.finish().await
    });
}

#[test]
fn root_a_log_that_cannot_be_opened_refuses_what_it_should_tell() {
    test_pod("audo", 91, SERVER, async |mut pod| {
        let running = pod.start_sleeping().await?;
        let (dir, aside) = (pod.node.dir().join("audit"), pod.node.dir().join("aside"));
        pod.node.kill_server()?;
        std::fs::rename(&dir, &aside)?;
        std::fs::write(&dir, "not a folder")?;
        pod.client = pod.node.start_server().await?;

        let container = pod.script("next", "exec sleep 1000");
        let id = pod.client.create(&pod.id, &container, &pod.config).await?;
        let refused = format!("{:?}", pod.client.start(&id).await.unwrap_err());
        ensure!(refused.contains("cannot open the audit log"), "{refused}");
        let state = pod.client.status(&id).await?.state();
        ensure!(state == cri::ContainerState::ContainerCreated, "{state:?}");
        let refused = pod.client.exec(&running, &["true"], 5).await.unwrap_err();
        ensure!(
            refused.code() == tonic::Code::FailedPrecondition,
            "{refused}"
        );
        let image = pod.node.image();
        ensure!(pod.client.pull(&image).await.is_err(), "a pull is refused");

        // Nothing needs to be started again once the cause is gone.
        std::fs::remove_file(&dir)?;
        std::fs::rename(&aside, &dir)?;
        pod.client.start(&id).await?;
        ensure!(audit::entries_of(&pod.node, Kind::Start, &id)?.len() == 1);
        audit::verify(&pod.node)?;
        pod.client.stop(&running, 0).await?;
        pod.finish().await
    });
}

#[test]
fn root_a_log_that_is_full_undoes_what_it_should_tell() {
    test_pod("audf", 92, SERVER, async |mut pod| {
        let running = pod.start_sleeping().await?;
        // Its entries do not fit what is left of the last page.
        let mut config = pod.config.clone();
        let metadata = config.metadata.as_mut().context("no metadata")?;
        (metadata.name, metadata.uid) = ("long".to_owned(), "u".repeat(8192));
        let long = pod.client.run_pod(&config).await?;
        let script = pod.script("next", "echo started; exec sleep 1000");
        let id = pod.client.create(&long, &script, &config).await?;
        let disk = replace_by_small_disk(&mut pod).await?;
        ensure!(pod.client.exec(&running, &["true"], 5).await?.exit_code == 0);
        sealed(&pod)?;
        disk.fill()?;

        let refused = pod.client.start(&id).await.unwrap_err();
        let refused = format!("{refused:?}");
        ensure!(
            refused.contains("cannot write to the audit log"),
            "{refused}"
        );
        let status = pod.client.await_exit(&id, WITHIN).await?;
        ensure!(status.exit_code != 0, "{status:?}");
        let mark = "sleep 4711";
        let command = ["sleep", "4711", &"0".repeat(8192)];
        let refused = pod.client.exec(&running, &command, 5).await.unwrap_err();
        let refused = refused.to_string();
        ensure!(
            refused.contains("cannot write to the audit log"),
            "{refused}"
        );
        eventually_gone(mark)?;

        disk.free()?;
        ensure!(pod.client.exec(&running, &["true"], 5).await?.exit_code == 0);
        audit::verify(&pod.node)?;
        pod.client.remove_pod(&long).await?;
        pod.node.kill_server()?;
        drop(disk);
        pod.client = pod.node.start_server().await?;
        pod.finish().await
    });
}

#[test]
fn root_a_log_that_is_not_required_is_missed_by_name() {
    test_pod("audn", 93, SERVER, async |mut pod| {
        pod.node.kill_server()?;
        let (dir, config) = (
            pod.node.dir().join("audit"),
            pod.node.dir().join("config.toml"),
        );
        std::fs::remove_dir_all(&dir)?;
        std::fs::write(&dir, "not a folder")?;
        let text = std::fs::read_to_string(&config)?;
        std::fs::write(&config, format!("{text}required = false\n"))?;
        pod.client = pod.node.start_server().await?;
        let id = pod.start_sleeping().await?;
        let message = pod.client.status(&id).await?.message;
        ensure!(message.contains("audit: not recorded"), "{message}");
        ensure!(pod.client.exec(&id, &["true"], 5).await?.exit_code == 0);
        pod.finish().await
    });
}

/// A file system of a few pages in the place of the log.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn fill(&self) -> Result<()> {
        let filled = std::fs::write(self.0.join("filler"), vec![0; 1 << 20]);
        ensure!(filled.is_err(), "the disk is not small");
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

async fn replace_by_small_disk(pod: &mut Pod) -> Result<SmallDisk> {
    pod.node.kill_server()?;
    let dir = pod.node.dir().join("audit");
    mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), c"size=256k")?;
    let disk = SmallDisk(dir);
    pod.client = pod.node.start_server().await?;
    Ok(disk)
}

/// Waits until the head signs the newest entry.
fn sealed(pod: &Pod) -> Result<()> {
    let start = std::time::Instant::now();
    loop {
        let report = audit::verify(&pod.node);
        if let Ok(report) = &report
            && report.head.last.seq == report.last
        {
            return Ok(());
        }
        ensure!(start.elapsed() < WITHIN, "not sealed: {report:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn eventually_gone(mark: &str) -> Result<()> {
    let start = std::time::Instant::now();
    while runs(mark) {
        ensure!(start.elapsed() < WITHIN, "`{mark}` still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn runs(mark: &str) -> bool {
    let mark = mark.replace(' ', "\0");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        let command = std::fs::read(Path::new(&process.path()).join("cmdline"));
        String::from_utf8_lossy(&command.unwrap_or_default()).starts_with(&mark)
    })
}
