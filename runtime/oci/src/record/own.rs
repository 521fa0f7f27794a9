//! What this process is itself: the comparison measures against it, and it decides whether a process
//! can honestly be traced.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::CWD;

use super::observed::{NAMESPACES, Reader, Status, read_small};

/// `CAP_SYS_PTRACE`.
const SYS_PTRACE: u64 = 1 << 19;
/// `CAP_SYS_RESOURCE`.
pub(super) const SYS_RESOURCE: u64 = 1 << 24;

/// The process that verifies.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    pub(super) status: Status,
    pub(super) label: Option<String>,
    /// Inode by kind.
    pub(super) namespaces: BTreeMap<String, u64>,
    /// `kernel.yama.ptrace_scope`; none without Yama.
    pub(super) yama: Option<u8>,
}

/// The facts of this process, read once: a monitor changes neither credentials nor namespaces.
pub(super) fn own() -> io::Result<&'static Own> {
    static OWN: OnceLock<Own> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(own);
    }
    let read = read()?;
    Ok(OWN.get_or_init(|| read))
}

fn read() -> io::Result<Own> {
    let mut reader = Reader::own()?;
    let status = Status::parse(&reader.read("status")?);
    let label = reader.label();
    let mut namespaces = BTreeMap::new();
    for kind in NAMESPACES {
        if let Some(inode) = reader.namespace(kind)? {
            namespaces.insert(kind.to_owned(), inode);
        }
    }
    let yama = read_small(CWD, Path::new("/proc/sys/kernel/yama/ptrace_scope"));
    Ok(Own {
        status,
        label,
        namespaces,
        yama: yama.ok().and_then(|text| text.trim().parse().ok()),
    })
}

impl Own {
    /// Why tracing would change what is traced, or would be refused; `None` when it can be done. A
    /// tracer without `CAP_SYS_PTRACE` takes a set-user-id program's privilege away (execve(2)); it
    /// has it over the user namespace that it made (user_namespaces(7), "Capabilities"). A filter or
    /// a profile of its own may forbid the calls or kill for them.
    pub(super) fn cannot_trace(&self, in_own_users: bool) -> Option<String> {
        if self.status.effective & SYS_PTRACE == 0 && !in_own_users {
            return Some("no CAP_SYS_PTRACE".to_owned());
        }
        if self.yama == Some(3) {
            return Some("Yama forbids it (kernel.yama.ptrace_scope is 3)".to_owned());
        }
        if self.status.seccomp != 0 {
            return Some("the runtime has a seccomp filter of its own".to_owned());
        }
        let confined = self.label.as_deref();
        confined
            .filter(|label| !label.starts_with("unconfined") && !label.starts_with("kernel"))
            .map(|label| format!("the runtime is in the security domain `{label}`"))
    }

    /// Whether device filters could have been attached: `CAP_SYS_ADMIN`, or `CAP_BPF` and more.
    pub(super) fn may_filter(&self) -> bool {
        self.status.effective & crate::capability::SYS_ADMIN != 0
    }

    /// Whether an OOM score or a hard limit could have been set as asked.
    pub(super) fn may_raise(&self) -> bool {
        self.status.effective & SYS_RESOURCE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_is_named() {
        let able = Own {
            status: Status {
                effective: SYS_PTRACE,
                ..Status::default()
            },
            ..Own::default()
        };
        assert_eq!(able.cannot_trace(false), None);
        let unprivileged = Own::default();
        assert_eq!(unprivileged.cannot_trace(true), None);
        let yama = Own {
            yama: Some(3),
            ..able.clone()
        };
        let harmless = Own {
            yama: Some(2),
            label: Some("unconfined".into()),
            ..able.clone()
        };
        assert_eq!(harmless.cannot_trace(false), None);
        let mut filtered = able.clone();
        filtered.status.seccomp = 2;
        let confined = Own {
            label: Some("docker-default (enforce)".into()),
            ..able
        };
        for (own, word) in [
            (unprivileged, "CAP_SYS_PTRACE"),
            (yama, "Yama"),
            (filtered, "seccomp"),
            (confined, "docker-default"),
        ] {
            let reason = own.cannot_trace(false).unwrap();
            assert!(reason.contains(word), "{reason}");
        }
    }
}
