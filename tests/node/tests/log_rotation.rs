//! Logs that grow: rotated without losing a line, and over a restart of the kubelet.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_kubelet::Config;
use berth_test_node::{runs, test_kubelet, until};
use serde_json::Value;

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-node");
const NOTHING: Value = Value::Null;
/// Writes 3000 numbered lines of about 40 bytes over some seconds.
const WRITER: &str = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); \
                      test $((i % 60)) = 0 && sleep 0.1; done; sleep 1000";

#[test]
fn root_rotation_loses_no_line() {
    test_kubelet("krot", 57, SERVER, async |mut kubelet| {
        kubelet.restart_with(rotate_often).await?;
        kubelet.put("talks", WRITER, &NOTHING, &NOTHING)?;
        let main = kubelet.await_main("talks", runs(0)).await?;
        let log = PathBuf::from(&main.log_path);
        // The last line is out, and the newest file is below the mark again.
        until("the log is as wanted", async || {
            let all = everything(&log)?;
            let size = log.metadata().map_or(u64::MAX, |seen| seen.len());
            Ok(all.contains("line 2999\n") && size < MAX_SIZE)
        })
        .await?;
        let all = everything(&log)?;
        let lines: Vec<&str> = all.lines().filter_map(|l| l.split(" F ").nth(1)).collect();
        let expected: Vec<String> = (0..3000).map(|i| format!("line {i}")).collect();
        let missing: Vec<_> = expected
            .iter()
            .filter(|l| !lines.contains(&l.as_str()))
            .collect();
        ensure!(
            lines == expected,
            "{missing:?} of {:?} are missing",
            rotated(&log)?
        );
        let names = rotated(&log)?;
        ensure!(names.len() >= 2, "{names:?}");
        let (newest, older) = names.split_last().context("no rotated file")?;
        let gz = |path: &PathBuf| path.extension().is_some_and(|e| e == "gz");
        ensure!(!gz(newest) && older.iter().all(gz), "{names:?}");
        kubelet.remove("talks")?;
        kubelet.await_gone("talks").await?;
        kubelet.finish().await
    });
}

#[test]
fn root_no_more_files_stay_than_asked_for() {
    test_kubelet("krof", 58, SERVER, async |mut kubelet| {
        let few = |config: &mut Config| {
            rotate_often(config);
            config.container_logs.max_files = 3;
        };
        kubelet.restart_with(few).await?;
        let script = "while true; do echo some text for the log; sleep 0.001; done";
        kubelet.put("talks", script, &NOTHING, &NOTHING)?;
        let log = PathBuf::from(kubelet.await_main("talks", runs(0)).await?.log_path);
        until("the log is as wanted", async || {
            Ok(!rotated(&log)?.is_empty())
        })
        .await?;
        let first = rotated(&log)?.remove(0).display().to_string();
        let stem = first.trim_end_matches(".gz");
        // Time enough for more rotations than files may stay.
        until("the log is as wanted", async || {
            let names = rotated(&log)?;
            ensure!(names.len() <= 3, "{names:?}");
            Ok(!names
                .iter()
                .any(|n| n.display().to_string().starts_with(stem)))
        })
        .await?;
        kubelet.remove("talks")?;
        kubelet.await_gone("talks").await?;
        kubelet.finish().await
    });
}

#[test]
fn root_a_kubelet_that_ended_while_rotating_is_made_up_for() {
    test_kubelet("krok", 59, SERVER, async |mut kubelet| {
        kubelet.restart_with(rotate_often).await?;
        let script = "while true; do echo alive; sleep 0.05; done";
        kubelet.put("talks", script, &NOTHING, &NOTHING)?;
        let log = PathBuf::from(kubelet.await_main("talks", runs(0)).await?.log_path);
        until("the log is as wanted", async || Ok(log.exists())).await?;
        kubelet.stop().await;
        std::fs::rename(&log, log.with_extension("log.20260101-000000"))?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        ensure!(!log.exists(), "nobody opens it by himself");
        kubelet.start()?;
        until("the log is as wanted", async || {
            Ok(std::fs::read_to_string(&log).is_ok_and(|text| text.contains("alive")))
        })
        .await?;
        kubelet.remove("talks")?;
        kubelet.await_gone("talks").await?;
        kubelet.finish().await
    });
}

const MAX_SIZE: u64 = 20_000;

fn rotate_often(config: &mut Config) {
    config.container_logs.max_size = Some(MAX_SIZE);
    config.container_logs.max_files = 100;
    config.container_logs.interval = Duration::from_millis(100);
}

/// What the log was renamed to, the oldest first.
fn rotated(log: &Path) -> Result<Vec<PathBuf>> {
    let dir = log.parent().context("a log has a directory")?;
    let mut names: Vec<PathBuf> = std::fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != log && path.extension().is_none_or(|e| e != "tmp"))
        .collect();
    names.sort();
    Ok(names)
}

/// The log from its first line on; what is being compressed right now counts once.
fn everything(log: &Path) -> Result<String> {
    let mut text = String::new();
    for path in rotated(log)?.iter().chain([&log.to_path_buf()]) {
        let path_gz = PathBuf::from(format!("{}.gz", path.display()));
        if path.extension().is_some_and(|e| e == "gz") {
            let out = Command::new("gzip").arg("-dc").arg(path).output()?;
            text.push_str(&String::from_utf8(out.stdout)?);
        } else if !path_gz.exists() {
            text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
    }
    Ok(text)
}
