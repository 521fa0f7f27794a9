//! Use by an ordinary user: where its state lies, what its specs need, and which cgroup it has.

use std::path::{Path, PathBuf};

use berth_oci::cgroup::{Cgroup, Host};
use berth_oci::plan::Plan;
use berth_oci::spec::{SpecError, SpecErrors};
use berth_sys::creds;
use berth_sys::ns::NamespaceKind;
use rustix::fs::{Access, AtFlags, CWD};

use super::Failure;
use crate::cli::{DEFAULT_ROOT, Global, Rootless};

/// `CAP_SYS_ADMIN`, which every namespace but that of users takes (namespaces(7)).
const SYS_ADMIN: u64 = 1 << 21;

/// The state directory: `--root`, else `/run/berth-oci`, and for an ordinary user a folder of its
/// own (XDG Base Directory Specification).
pub(super) fn state_root(global: &Global) -> Result<PathBuf, Failure> {
    let root = Path::new(&global.root);
    if root != Path::new(DEFAULT_ROOT) || rustix::process::geteuid().is_root() {
        return std::path::absolute(root).map_err(Failure::io("resolve --root"));
    }
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(own) if own.is_absolute() => Ok(own.join("berth-oci")),
        _ => Err(Failure::Usage(
            "XDG_RUNTIME_DIR is not set: without root, --root is needed".into(),
        )),
    }
}

/// Adds to what validation says: without privilege there is no container without a user namespace.
pub(super) fn check(plan: Result<Plan, SpecErrors>) -> Result<Plan, SpecErrors> {
    let privileged = creds::effective_capabilities().is_ok_and(|own| own & SYS_ADMIN != 0);
    if privileged {
        return plan;
    }
    let missing = SpecError {
        path: "linux.namespaces".into(),
        message: "a user namespace is needed without root".into(),
    };
    match plan {
        Ok(plan) if plan.namespaces.has_own(NamespaceKind::User) => Ok(plan),
        Ok(_) => Err(SpecErrors(vec![missing])),
        Err(SpecErrors(mut errors)) => {
            errors.push(missing);
            Err(SpecErrors(errors))
        }
    }
}

/// Where groups may be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delegation {
    /// Everywhere.
    Whole,
    /// Below this group, relative to the cgroup2 mount.
    Below(PathBuf),
    /// Nowhere, and why.
    Nowhere(String),
}

/// Where the caller may make groups: as `--rootless` says, or where it is no root, only below its
/// own one, if that is delegated to it (cgroup-v2.rst, "Delegation").
pub(super) fn delegation(global: &Global) -> Delegation {
    let ordinary = !rustix::process::geteuid().is_root();
    let narrow = match global.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => ordinary,
    };
    if !narrow {
        return Delegation::Whole;
    }
    own_group().unwrap_or_else(Delegation::Nowhere)
}

fn own_group() -> Result<Delegation, String> {
    let host = Host::probe().map_err(|error| error.to_string())?;
    if writable(&host.mount) {
        return Ok(Delegation::Whole);
    }
    let own = Cgroup::of_process(std::process::id() as i32).map_err(|error| error.to_string())?;
    let relative = own.path().strip_prefix(&host.mount).unwrap_or(own.path());
    if writable(own.path()) {
        Ok(Delegation::Below(relative.to_owned()))
    } else {
        let path = own.path().display();
        Err(format!("`{path}` is not delegated to this user"))
    }
}

/// Whether groups can be made in `group`, and processes moved within it.
fn writable(group: &Path) -> bool {
    let may =
        |path: &Path| rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    may(group) && may(&group.join("cgroup.procs"))
}
