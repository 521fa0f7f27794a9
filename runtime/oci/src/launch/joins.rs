//! Existing namespaces that a process moves into.
//!
//! Those of one process (`/proc/<pid>/ns/…`) are entered together, by its pidfd: in one step, and
//! never half of one process and half of another that got its number (setns(2)).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::ns::{self, Namespace, NamespaceKind};
use berth_sys::process;

use super::error::At;
use super::{LaunchError, Stage};

/// Open handles to all of them; dropping it closes them.
#[derive(Debug, Default)]
pub(super) struct Joins(Vec<Step>);

#[derive(Debug)]
struct Step {
    kinds: Vec<NamespaceKind>,
    /// A pidfd for several kinds, a namespace file for one.
    handle: OwnedFd,
}

impl Joins {
    /// Opens each namespace by its path.
    pub(super) fn open(list: &[(NamespaceKind, PathBuf)]) -> Result<Joins, LaunchError> {
        let mut steps = Vec::new();
        for (pid, kinds) in by_process(list) {
            let handle = process::pidfd_open(pid).at(Stage::Clone, || {
                format!("open process {pid}, whose namespaces are to be joined")
            })?;
            steps.push(Step { kinds, handle });
        }
        for (kind, path) in list {
            if !steps.iter().any(|step| step.kinds.contains(kind)) {
                steps.push(Step {
                    kinds: vec![*kind],
                    handle: open(*kind, path)?,
                });
            }
        }
        // The mount namespace last: it changes what every path means.
        steps.sort_by_key(|step| step.kinds.contains(&NamespaceKind::Mount));
        Ok(Joins(steps))
    }

    /// Whether there is nothing to join.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The handles, to be kept open up to [`Joins::enter`].
    pub(super) fn borrowed(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(|step| step.handle.as_fd())
    }

    /// Moves the calling thread into all of them. The rights over one may come from where this
    /// process is now, or only from the user namespace that it joins: what is refused before that
    /// is tried again after it.
    pub(super) fn enter(self) -> Result<(), LaunchError> {
        let (last, first): (Vec<Step>, Vec<Step>) = self.0.into_iter().partition(Step::has_user);
        let mut refused = Vec::new();
        for step in first {
            match step.enter() {
                Err(error) if error.errno == Some(libc::EPERM) && !last.is_empty() => {
                    refused.push(step);
                }
                done => done?,
            }
        }
        last.iter().chain(&refused).try_for_each(Step::enter)
    }
}

impl Step {
    fn has_user(&self) -> bool {
        self.kinds.contains(&NamespaceKind::User)
    }

    fn enter(&self) -> Result<(), LaunchError> {
        let flags = self.kinds.iter().fold(0, |all, kind| all | kind.flag());
        ns::join(&self.handle, flags).at(Stage::Join, || {
            let names: Vec<&str> = self.kinds.iter().map(|kind| kind.proc_name()).collect();
            match names.as_slice() {
                [name] => format!("join the {name} namespace"),
                names => format!("join the namespaces {}", names.join(", ")),
            }
        })
    }
}

/// Opens the file of one namespace.
pub(super) fn open(kind: NamespaceKind, path: &Path) -> Result<OwnedFd, LaunchError> {
    let namespace = Namespace::open(kind, path).at(Stage::Clone, || {
        format!(
            "open the {} namespace `{}`",
            kind.proc_name(),
            path.display()
        )
    })?;
    Ok(namespace.into())
}

/// Processes of which several namespaces are asked for, with the kinds.
fn by_process(list: &[(NamespaceKind, PathBuf)]) -> BTreeMap<i32, Vec<NamespaceKind>> {
    let mut out: BTreeMap<i32, Vec<NamespaceKind>> = BTreeMap::new();
    for (kind, path) in list {
        if let Some(pid) = process_of(*kind, path) {
            out.entry(pid).or_default().push(*kind);
        }
    }
    out.retain(|_, kinds| kinds.len() > 1);
    out
}

/// The process in `/proc/<pid>/ns/<kind>`, written just like this.
fn process_of(kind: NamespaceKind, path: &Path) -> Option<i32> {
    let rest = path.to_str()?.strip_prefix("/proc/")?;
    let (pid, name) = rest.split_once("/ns/")?;
    let plain = pid.bytes().all(|byte| byte.is_ascii_digit());
    (plain && name == kind.proc_name())
        .then(|| pid.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_one_process_go_together() {
        use NamespaceKind::{Ipc, Net, Pid, Uts};
        let list = [
            (Ipc, "/proc/7/ns/ipc"),
            (Net, "/proc/7/ns/net"),
            (Uts, "/proc/8/ns/uts"),
            (Pid, "/proc/7/ns/pid_for_children"),
        ]
        .map(|(kind, path)| (kind, PathBuf::from(path)));
        assert_eq!(by_process(&list), [(7, vec![Ipc, Net])].into());
    }

    #[test]
    fn only_the_plain_form_names_a_process() {
        let net = |path: &str| process_of(NamespaceKind::Net, Path::new(path));
        assert_eq!(net("/proc/12/ns/net"), Some(12));
        for path in [
            "/proc/self/ns/net",
            "/proc/12/ns/ipc",
            "/proc/12/task/13/ns/net",
            "/proc/99999999999/ns/net",
            "/proc//ns/net",
            "/run/netns/12",
        ] {
            assert_eq!(net(path), None, "{path}");
        }
    }
}
