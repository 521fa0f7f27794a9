//! One container's record, and its status as observed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::process;
use serde::{Deserialize, Serialize};

/// Life cycle of a container (runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` has not returned yet.
    Creating,
    /// Init waits for `start`.
    Created,
    /// Init runs the program.
    Running,
    /// Every process is frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl Status {
    /// The word of the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// What is kept in `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the specification which the bundle claims.
    pub oci_version: String,
    /// Id of the container.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root file system, absolute.
    pub rootfs: PathBuf,
    /// Process id of init; 0 while creating.
    pub pid: i32,
    /// When init started, in clock ticks since boot: with it a reused pid is recognised.
    pub start_time: u64,
    /// When the record was made, RFC 3339.
    pub created: String,
    /// The cgroup, absolute; none if the container has none of its own.
    pub cgroup: Option<PathBuf>,
    /// systemd's unit, where it made the cgroup.
    #[serde(default)]
    pub scope: Option<String>,
    /// Whether its processes keep the session keyring of who makes them.
    #[serde(default)]
    pub no_new_keyring: bool,
    /// Whether the spec has hooks for later than `create`: only for them it is read again.
    #[serde(default = "assumed")]
    pub late_hooks: bool,
    /// Annotations of the spec.
    pub annotations: BTreeMap<String, String>,
}

/// A record of a release that did not note it may have hooks.
fn assumed() -> bool {
    true
}

impl Record {
    /// A pidfd of the container's init; `None` when it has ended (a zombie has).
    pub fn init(&self) -> io::Result<Option<OwnedFd>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        let pidfd = match process::pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Read after the pidfd is open: if the times agree, the pidfd is of the right process.
        match stat(self.pid) {
            Ok((state, start_time))
                if start_time == self.start_time && !matches!(state, 'Z' | 'X') =>
            {
                Ok(Some(pidfd))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Room for what the file of most processes holds, in bytes.
const READ_AT_ONCE: usize = 1024;

/// State letter and start time of a process, from `/proc/<pid>/stat` (proc_pid_stat(5)).
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let mut text = String::with_capacity(READ_AT_ONCE);
    File::open(Path::new("/proc").join(pid.to_string()).join("stat"))?
        .take(4096)
        .read_to_string(&mut text)?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_time(pid: i32) -> io::Result<u64> {
    stat(pid).map(|(_, start)| start)
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    // The name stands in parentheses and may itself contain anything: fields start after the last one.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((
        fields.first()?.chars().next()?,
        fields.get(19)?.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let tail = "S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 1";
        assert_eq!(
            parse_stat(&format!("7 (a) R (b)) {tail}")),
            Some(('S', 4711))
        );
        assert_eq!(parse_stat("7 (x"), None);
    }

    #[test]
    fn this_process_is_alive_and_its_successor_is_not() {
        let pid = std::process::id() as i32;
        let mut record = Record {
            oci_version: "1.2.0".into(),
            id: "a".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            pid,
            start_time: start_time(pid).unwrap(),
            created: String::new(),
            cgroup: None,
            scope: None,
            no_new_keyring: false,
            late_hooks: false,
            annotations: BTreeMap::new(),
        };
        assert!(record.init().unwrap().is_some());
        record.start_time += 1;
        assert!(record.init().unwrap().is_none());
    }
}
