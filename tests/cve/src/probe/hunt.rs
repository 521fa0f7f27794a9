//! Lying in wait for the runtime's own processes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::report::ways;
use crate::bundle::PROBE;

/// The hunt ends when this file appears.
pub(crate) const END: &str = "/tmp/end";
/// A named pipe on which what is hunted waits for a reader.
pub(crate) const LOG: &str = "/tmp/log";
/// How long it is left waiting.
const HELD_UP: Duration = Duration::from_millis(20);
/// What it caught is written here.
pub(crate) const CAUGHT: &str = "/tmp/caught";
/// What a program is overwritten with.
const MARK: &[u8] = b"overwritten by the container\n";

/// What was learned of a process that is not the probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catch {
    /// Its program.
    pub exe: String,
    /// Where its descriptors lead.
    pub fds: Vec<String>,
    /// By what the host's canary could be read.
    pub reached: Vec<String>,
    /// It could be traced.
    pub traced: bool,
}

/// Looks into every foreign process of this PID namespace until told to end, and keeps what it
/// learned: descriptors, directories, whether it can be traced.
pub(super) fn processes(canary: &str) -> io::Result<()> {
    let mut caught: BTreeMap<String, Catch> = BTreeMap::new();
    while !Path::new(END).exists() {
        for process in foreign() {
            let Ok(exe) = fs::read_link(process.join("exe")) else {
                continue;
            };
            if exe == Path::new(PROBE) {
                continue;
            }
            let reached = ways(&process, canary);
            let fds = descriptors(&process);
            let same = fs::read_link(process.join("exe")).is_ok_and(|now| now == exe);
            let exe = exe.display().to_string();
            let one = caught.entry(exe.clone()).or_default();
            one.exe = exe;
            reached
                .iter()
                .for_each(|way| keep(&mut one.reached, generic(way)));
            // else they may be those of the probe, which it has become
            if same {
                fds.iter().for_each(|to| keep(&mut one.fds, generic(to)));
            }
            one.traced |= traceable(&process);
        }
    }
    let all: Vec<Catch> = caught.into_values().collect();
    fs::write(CAUGHT, serde_json::to_vec(&all)?)
}

fn descriptors(process: &Path) -> Vec<String> {
    let entries = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.map(|to| to.display().to_string()).collect()
}

fn keep(all: &mut Vec<String>, one: String) {
    if !all.contains(&one) {
        all.push(one);
    }
}

/// Without the numbers that differ each time.
fn generic(text: &str) -> String {
    let text = text.strip_prefix("/proc/").unwrap_or(text);
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Attaches for a moment; a process that has become the probe meanwhile counts as the probe.
fn traceable(process: &Path) -> bool {
    let number = process.file_name().and_then(|name| name.to_str());
    let Some(pid) = number.and_then(|number| number.parse().ok()) else {
        return false;
    };
    let pid = nix::unistd::Pid::from_raw(pid);
    if nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()).is_err() {
        return false;
    }
    let exe = fs::read_link(process.join("exe")).unwrap_or_default();
    let stopped = nix::sys::ptrace::interrupt(pid).is_ok();
    if stopped {
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    let _ = nix::sys::ptrace::detach(pid, None);
    !exe.as_os_str().is_empty() && exe != Path::new(PROBE)
}

/// Holds every foreign program it sees, and tries to write it until told to end.
pub(super) fn programs() -> io::Result<()> {
    let mut held: Vec<(PathBuf, File)> = Vec::new();
    let mut written = Vec::new();
    std::thread::spawn(read_now_and_then);
    while !Path::new(END).exists() {
        for process in foreign() {
            let path = process.join("exe");
            let Ok(exe) = fs::read_link(&path) else {
                continue;
            };
            let known = held.iter().any(|(name, _)| *name == exe);
            if exe != Path::new(PROBE)
                && !known
                && let Ok(file) = File::open(&path)
            {
                held.push((exe, file));
            }
        }
        for (exe, file) in &held {
            if write_again(file.as_raw_fd()).is_ok() {
                keep(&mut written, exe.display().to_string());
            }
        }
    }
    let seen: Vec<String> = held
        .iter()
        .map(|(exe, _)| exe.display().to_string())
        .collect();
    let told = serde_json::json!({"seen": seen, "written": written});
    fs::write(CAUGHT, told.to_string())
}

/// Lets everyone go on who waits for a reader of the log.
fn read_now_and_then() {
    loop {
        std::thread::sleep(HELD_UP);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let _ = rustix::fs::open(LOG, flags, Mode::empty());
    }
}

/// Overwrites the file behind an inherited descriptor, for some seconds while it is busy.
pub(super) fn overwrite(descriptor: &str) -> io::Result<()> {
    let number = descriptor.parse().map_err(io::Error::other)?;
    let mut last = Ok(());
    for _ in 0..200 {
        last = write_again(number);
        if last.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let told = match last {
        Ok(()) => "written".to_owned(),
        Err(error) => error.to_string(),
    };
    fs::write(CAUGHT, told)
}

/// Opens the file behind a descriptor anew, for writing, and spoils its end.
fn write_again(descriptor: i32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{descriptor}");
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(MARK)
}

/// The folders in procfs of all other processes.
fn foreign() -> Vec<PathBuf> {
    let own = std::process::id().to_string();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.bytes().all(|byte| byte.is_ascii_digit()) && *name != *own
        })
        .map(|entry| entry.path())
        .collect()
}
