//! One container of `/bin/true` under berth-oci, crun and runc.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use super::sample::Comparison;
use crate::preflight::{self, Need};
use crate::{bundle, dist, process};

const PEERS: [Need; 2] = [
    Need {
        package: "crun",
        program: "crun",
        why: "the peer of the bench, in C",
    },
    Need {
        package: "runc",
        program: "runc",
        why: "the peer of the bench, in Go",
    },
];

/// A runtime's command line, with its own state folder.
struct Runtime {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
}

/// A case's name and one run of it, in milliseconds.
type Case = (&'static str, fn(&Runtime, &Path) -> Result<f64>);

/// Measures every case against every peer that runs here.
pub fn run(runs: usize) -> Result<Vec<Comparison>> {
    preflight::ensure(&PEERS)?;
    let programs = dist::build()?;
    let folder = tempfile::Builder::new().prefix("berth-bench-").tempdir()?;
    let bundle = make_bundle(folder.path())?;
    let mut results = Vec::new();
    for peer in ["crun", "runc"] {
        let program = process::find(peer).with_context(|| format!("no {peer}"))?;
        let (ours, theirs) = runtimes(folder.path(), &programs, peer, program, &bundle)?;
        let cases: [Case; 2] = [
            ("create+start+delete", three_processes),
            ("run", one_process),
        ];
        for (case, measure) in cases {
            // the first pair warms the page cache
            let mut pairs = Vec::new();
            for _ in 0..=runs {
                pairs.push((measure(&ours, &bundle)?, measure(&theirs, &bundle)?));
            }
            pairs.remove(0);
            results.push(Comparison {
                bench: "oci",
                case,
                peer: theirs.name.clone(),
                pairs,
            });
        }
    }
    Ok(results)
}

/// Ours and the peer, under the same terms: where the peer cannot use this host's
/// cgroups (crun on some hybrid hosts), neither does.
fn runtimes(
    folder: &Path,
    programs: &Path,
    peer: &str,
    program: PathBuf,
    bundle: &Path,
) -> Result<(Runtime, Runtime)> {
    let version = process::output(Command::new(&program).arg("--version"))?;
    let version = version
        .lines()
        .next()
        .unwrap_or_default()
        .replace(" version", "");
    let state = |name: &str| folder.join(format!("state-{name}")).display().to_string();
    let mut ours = Runtime {
        name: "berth-oci".into(),
        program: programs.join("berth-oci"),
        arguments: vec!["--root".into(), state("berth")],
    };
    let mut theirs = Runtime {
        name: version,
        program,
        arguments: vec!["--root".into(), state(peer)],
    };
    if one_process(&theirs, bundle).is_err() {
        for runtime in [&mut ours, &mut theirs] {
            runtime.arguments.push("--cgroup-manager=disabled".into());
        }
        theirs.name.push_str(" (both without cgroups)");
        one_process(&theirs, bundle).with_context(|| format!("{peer} does not run here"))?;
    }
    Ok((ours, theirs))
}

/// create, start, the exit told by pidfd, delete without --force: forced deletes poll.
fn three_processes(runtime: &Runtime, bundle: &Path) -> Result<f64> {
    let pid_file = bundle.join("pid");
    let (id, path) = ("bench", bundle.display().to_string());
    let pid_path = pid_file.display().to_string();
    let started = Instant::now();
    runtime.call(&["create", "--bundle", &path, "--pid-file", &pid_path, id])?;
    let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
    let pid = Pid::from_raw(pid).context("process id 0")?;
    let exit = pidfd_open(pid, PidfdFlags::empty()).context("cannot open the process")?;
    runtime.call(&["start", id])?;
    poll(&mut [PollFd::new(&exit, PollFlags::IN)], None)?;
    runtime.call(&["delete", id])?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

fn one_process(runtime: &Runtime, bundle: &Path) -> Result<f64> {
    let started = Instant::now();
    runtime.call(&["run", "--bundle", &bundle.display().to_string(), "bench"])?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

impl Runtime {
    fn call(&self, arguments: &[&str]) -> Result<()> {
        let log = tempfile::tempfile()?;
        let status = Command::new(&self.program)
            .args(&self.arguments)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(File::options().write(true).open("/dev/null")?)
            .stderr(log.try_clone()?)
            .status()
            .with_context(|| format!("cannot run {}", self.name))?;
        if !status.success() {
            let mut text = String::new();
            std::io::Seek::rewind(&mut &log)?;
            std::io::Read::read_to_string(&mut &log, &mut text)?;
            ensure!(
                false,
                "{} {}: {}",
                self.name,
                arguments.join(" "),
                text.trim()
            );
        }
        Ok(())
    }
}

fn make_bundle(folder: &Path) -> Result<PathBuf> {
    let bundle = folder.join("bundle");
    let rootfs = bundle.join("rootfs");
    bundle::unpack_busybox(&rootfs)?;
    let mut spec = bundle::specification(&["/bin/true"], Path::new("rootfs"));
    // the oldest peer here knows version 1.0.2
    spec["ociVersion"] = json!("1.0.2");
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
    Ok(bundle)
}
