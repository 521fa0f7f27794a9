//! What a process finds around itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// An open descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Where it leads.
    pub to: String,
    /// The lines of its `fdinfo`.
    pub info: String,
}

/// Everything the probe can tell about its own process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Process id in its own namespace.
    pub pid: u32,
    /// Working directory.
    pub cwd: String,
    /// The program.
    pub exe: String,
    /// Environment as `NAME=VALUE`, in order.
    pub env: Vec<String>,
    /// Lines of `/proc/self/status`.
    pub status: BTreeMap<String, String>,
    /// Open descriptors, without the one used for reading them.
    pub fds: BTreeMap<u32, Descriptor>,
    /// Namespace links of `/proc/self/ns`.
    pub namespaces: BTreeMap<String, String>,
    /// Lines of `/proc/self/mountinfo`.
    pub mounts: Vec<String>,
    /// Files of `/proc/self/maps`.
    pub mapped: Vec<String>,
    /// Process group, session, and number of the controlling terminal, of `/proc/self/stat`.
    pub session: (i64, i64, i64),
    /// Lines of `/proc/self/cgroup`.
    pub cgroup: Vec<String>,
    /// Ways by which the host's canary could be read: the root, the working directory, descriptors.
    pub reached: Vec<String>,
}

impl Report {
    /// The mounts whose root in their own file system ends with `root`: mount points.
    pub fn mounted(&self, root: &str) -> Vec<&str> {
        let fields = self.mounts.iter().map(|line| line.split(' '));
        fields
            .filter_map(|mut fields| {
                let shown = fields.nth(3)?;
                shown.ends_with(root).then(|| fields.next()).flatten()
            })
            .collect()
    }
}

pub(super) fn print(canary: Option<&str>) -> io::Result<()> {
    let report = collect(canary)?;
    serde_json::to_writer(io::stdout(), &report)?;
    writeln!(io::stdout())
}

/// Adds a line with the report to a file.
pub(super) fn write(file: &str) -> io::Result<()> {
    // before the file is open: it would show up among the descriptors
    let mut line = serde_json::to_vec(&collect(None)?)?;
    line.push(b'\n');
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)?;
    file.write_all(&line)
}

fn collect(canary: Option<&str>) -> io::Result<Report> {
    let own = |name: &str| {
        let bytes = fs::read(Path::new("/proc/self").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let lines = |name: &str| own(name).lines().map(str::to_owned).collect::<Vec<_>>();
    let link = |name: &str| match fs::read_link(Path::new("/proc/self").join(name)) {
        Ok(path) => path.display().to_string(),
        Err(error) => error.to_string(),
    };
    let status = lines("status");
    let status = status.iter().filter_map(|line| line.split_once(':'));
    Ok(Report {
        pid: std::process::id(),
        cwd: link("cwd"),
        exe: link("exe"),
        env: own("environ")
            .split_terminator('\0')
            .map(str::to_owned)
            .collect(),
        status: status
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect(),
        fds: descriptors()?,
        namespaces: links(Path::new("/proc/self/ns"))?,
        mounts: lines("mountinfo"),
        mapped: mapped(&own("maps")),
        session: session(&own("stat")),
        cgroup: lines("cgroup"),
        reached: canary.map(reached).unwrap_or_default(),
    })
}

fn descriptors() -> io::Result<BTreeMap<u32, Descriptor>> {
    let folder = Path::new("/proc/self/fd");
    let own = format!("/proc/{}/fd", std::process::id());
    let found = links(folder)?.into_iter().filter(|(_, to)| *to != own);
    let told = found.filter_map(|(number, to)| {
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(&number)).ok()?;
        Some((number.parse().ok()?, Descriptor { to, info }))
    });
    Ok(told.collect())
}

fn links(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // the descriptor of this very listing is gone by the time it is read
        if let Ok(target) = fs::read_link(entry.path()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            found.insert(name, target.display().to_string());
        }
    }
    Ok(found)
}

fn mapped(maps: &str) -> Vec<String> {
    let mut files: Vec<String> = maps
        .lines()
        .filter_map(|line| Some(line.split_once('/')?.1))
        .map(|path| format!("/{path}"))
        .collect();
    files.dedup();
    files
}

/// Fields 5 to 7 of proc_pid_stat(5).
fn session(stat: &str) -> (i64, i64, i64) {
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let numbers: Vec<i64> = rest
        .split_whitespace()
        .skip(2)
        .take(3)
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers.as_slice() {
        [group, session, terminal] => (*group, *session, *terminal),
        _ => (-1, -1, -1),
    }
}

/// Tries to read the host's file through everything this process holds open.
fn reached(canary: &str) -> Vec<String> {
    let mut found = ways(Path::new("/proc/self"), canary);
    if fs::read(canary).is_ok() {
        found.push("its own path".into());
    }
    found
}

/// By which of its directories a process of procfs leads to `canary`, or to a procfs whose kernel
/// parameters can be written.
pub(super) fn ways(process: &Path, canary: &str) -> Vec<String> {
    let mut bases = vec![process.join("root"), process.join("cwd")];
    if let Ok(entries) = fs::read_dir(process.join("fd")) {
        bases.extend(entries.flatten().map(|entry| entry.path()));
    }
    // any depth: `..` of the root is the root
    let up = "../".repeat(24);
    let below = canary.trim_start_matches('/');
    let candidate = |base: &PathBuf| {
        let climbing = base.join(format!("{up}{below}"));
        let parameter = base.join("sys/kernel/core_pattern");
        fs::read(base.join(below)).is_ok()
            || fs::read(climbing).is_ok()
            || fs::OpenOptions::new().write(true).open(parameter).is_ok()
    };
    let led = bases.iter().filter(|base| candidate(base));
    led.map(|base| base.display().to_string()).collect()
}
