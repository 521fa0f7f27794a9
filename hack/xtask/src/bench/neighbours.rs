//! Executions and exits in a pod with a noisy neighbour, or whose log disk stalls, against the same
//! pod in quiet.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::monitor::Monitor;
use super::sample::{Comparison, quantile};
use super::{Terms, hierarchy, host};
use crate::signal::Interrupts;
use crate::{bundle, process};

/// Containers of the pod besides the one that is measured and the loud one.
const CALM: usize = 8;
/// How long the disk stalls.
const STALL: Duration = Duration::from_secs(30);
/// Ends of containers that are measured while it stalls.
const ENDS: usize = 20;
/// How long a container may take for its first words.
const SPOKEN: Duration = Duration::from_millis(50);
/// Turns of noise and quiet, so that the machine's load meets both.
const TURNS: usize = 5;
/// Executions that are measured for each pair asked for.
const EXECUTIONS: usize = 10;
/// Size of the log disk, in bytes.
const DISK: u64 = 256 << 20;
const LOUD: &str = "loud";
/// Fills a log as fast as it is taken.
const SHOUT: [&str; 3] = [
    "/bin/busybox",
    "yes",
    "a line as long as lines of logs are, about eighty",
];
const SLEEP: [&str; 2] = ["/bin/sleep", "100000"];
/// Leaves output behind that is on its way to the disk.
const LAST_WORDS: [&str; 3] = ["/bin/sh", "-c", "echo last words; exec sleep 100000"];

/// A pod and its log disk.
struct Bench {
    pod: Monitor,
    logs: PathBuf,
    note: String,
}

/// Measures both cases and tells each result as soon as it is known.
pub fn run(
    programs: &Path,
    terms: &Terms,
    mut tell: impl FnMut(&Comparison) -> Result<()>,
) -> Result<()> {
    let mut interrupts = Interrupts::take()?;
    let note = format!("cgroups: {}; {} containers", hierarchy::unify()?, CALM + 2);
    // a disk that is left behind goes with the namespace
    host::private_mounts()?;
    let folder = tempfile::Builder::new().prefix("berth-bench-").tempdir()?;
    let rootfs = folder.path().join("rootfs");
    bundle::unpack_busybox(&rootfs)?;
    let specification = bundle::specification(&["/bin/true"], &rootfs);
    let disk = Disk::mount(folder.path())?;
    let mut pod = Monitor::start(programs, folder.path(), &specification)?;
    let logs = disk.0.clone();
    for number in 0..CALM {
        let name = format!("calm-{number}");
        pod.add(&name, &SLEEP, Some(&logs.join(&name)))?;
    }
    let mut bench = Bench { pod, logs, note };
    let count = terms.pairs * EXECUTIONS;
    bench.noise(count, &mut interrupts, &mut tell)?;
    bench.stall(&disk, count, &mut interrupts, &mut tell)
}

impl Bench {
    /// One of the containers floods its log.
    fn noise(
        &mut self,
        count: usize,
        interrupts: &mut Interrupts,
        tell: &mut impl FnMut(&Comparison) -> Result<()>,
    ) -> Result<()> {
        let log = self.logs.join(LOUD);
        let (mut noisy, mut quiet) = (Vec::new(), Vec::new());
        let (mut written, mut lasted) = (0, Duration::ZERO);
        for _ in 0..TURNS {
            interrupts.check()?;
            quiet.extend(self.executions(count / TURNS, Duration::ZERO)?);
            self.pod.add(LOUD, &SHOUT, Some(&log))?;
            let begun = Instant::now();
            let (taken, bytes) =
                while_emptied(&log, || self.executions(count / TURNS, Duration::ZERO))?;
            noisy.extend(taken);
            written += bytes;
            lasted += begun.elapsed();
            self.pod.killed(LOUD)?;
        }
        let rate = written as f64 / lasted.as_secs_f64() / f64::from(1 << 20);
        let note = format!("the neighbour logs {rate:.0} MiB/s");
        tell(&self.result("exec, loud neighbour", noisy, quiet, &note))
    }

    /// The disk of all logs stalls, with one of the containers flooding its log.
    fn stall(
        &mut self,
        disk: &Disk,
        count: usize,
        interrupts: &mut Interrupts,
        tell: &mut impl FnMut(&Comparison) -> Result<()>,
    ) -> Result<()> {
        for name in ["well", "ill"] {
            for number in 0..ENDS {
                // as the CRI server does, who can wait for the disk
                File::create(self.logs.join(format!("{name}-{number}")))?;
            }
        }
        File::create(self.logs.join(LOUD))?;
        let pace = STALL.div_f64(count as f64);
        let quiet = (self.executions(count, pace)?, self.ends("well")?);
        interrupts.check()?;
        let frozen = disk.freeze()?;
        self.pod.add(LOUD, &SHOUT, Some(&self.logs.join(LOUD)))?;
        let begun = Instant::now();
        let stalled = (self.executions(count, pace)?, self.ends("ill")?);
        let seconds = begun.elapsed().as_secs();
        drop(frozen);
        self.pod.killed(LOUD)?;
        let note = format!("the disk of all logs stalls for {seconds} s, a neighbour floods it");
        tell(&self.result("exec, stalled disk", stalled.0, quiet.0, &note))?;
        tell(&self.result("kill to exit event", stalled.1, quiet.1, &note))
    }

    /// Executes `/bin/true` so many times, each begun `pace` after the one before: milliseconds
    /// from asking to the knowledge that it has ended.
    fn executions(&mut self, count: usize, pace: Duration) -> Result<Vec<f64>> {
        let mut next = Instant::now();
        let once = |_| {
            sleep(next.saturating_duration_since(Instant::now()));
            next += pace;
            self.pod.executed()
        };
        (0..count).map(once).collect()
    }

    /// Kills containers that have said something: milliseconds until the exit event.
    fn ends(&mut self, name: &str) -> Result<Vec<f64>> {
        let mut once = |number| {
            let name = format!("{name}-{number}");
            self.pod
                .add(&name, &LAST_WORDS, Some(&self.logs.join(&name)))?;
            sleep(SPOKEN);
            self.pod.killed(&name)
        };
        (0..ENDS).map(&mut once).collect()
    }

    fn result(&self, case: &str, ours: Vec<f64>, quiet: Vec<f64>, note: &str) -> Comparison {
        let [p99, quiet_p99] = [&ours, &quiet].map(|values| quantile(values.clone(), 0.99));
        Comparison {
            bench: "exec",
            case: case.into(),
            unit: "ms",
            peer: "the same pod in quiet".into(),
            pairs: ours.into_iter().zip(quiet).collect(),
            note: format!(
                "p99 {p99:.2} ms against {quiet_p99:.2} ms; {note}; {}",
                self.note
            ),
        }
    }
}

/// Does `work` while the log at `path` is emptied ten times a second: its result, and how many bytes
/// were written meanwhile.
fn while_emptied<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let log = OpenOptions::new().write(true).open(path)?;
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = std::thread::scope(|scope| {
        let emptying = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(100));
                written.fetch_add(log.metadata()?.len(), Ordering::Relaxed);
                log.set_len(0)?;
            }
            Ok(())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let emptied = emptying.join();
        emptied.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        result
    });
    Ok((result?, written.into_inner()))
}

/// An ext4 file system in a file. While it is frozen, writers wait as before a dead disk
/// (fsfreeze(8)).
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path) -> Result<Disk> {
        let (image, place) = (folder.join("disk"), folder.join("logs"));
        File::create(&image)?.set_len(DISK)?;
        fs::create_dir(&place)?;
        process::run(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        process::run(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &place]),
        )?;
        Ok(Disk(place))
    }

    /// Stalls it until the result is dropped.
    fn freeze(&self) -> Result<Frozen<'_>> {
        process::run(Command::new("fsfreeze").arg("--freeze").arg(&self.0))?;
        Ok(Frozen(&self.0))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // what is left goes with the mount namespace
        let _ = process::run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

struct Frozen<'a>(&'a Path);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if let Err(error) = process::run(Command::new("fsfreeze").arg("--unfreeze").arg(self.0)) {
            eprintln!("xtask: {error:#}");
        }
    }
}
