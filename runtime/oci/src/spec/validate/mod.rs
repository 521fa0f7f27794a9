//! Spec → Plan: a pure check of every field, all errors at once, each with its JSON path.
//!
//! What berth does not support is refused by name here, so that nothing later has to ignore it.

mod clocks;
mod hooks;
mod idmap;
mod linux;
pub(crate) mod mount_options;
mod mounts;
mod netdev;
mod process;
mod rootfs;
mod schedule;
#[cfg(test)]
mod tests;
mod unsupported;
mod users;

pub(crate) use linux::sysctl_file;
pub use mount_options::WORDS as MOUNT_OPTIONS;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::config::{Linux, Process, Spec};
use super::{SpecError, SpecErrors};
use crate::lsm::Modules;
use crate::plan::{ExecPlan, Listener, Plan, ProcessPlan, Source};

/// Collects errors; a check that fails notes its error and yields a harmless value.
#[derive(Debug, Default)]
struct Errors(Vec<SpecError>);

impl Errors {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(SpecError {
            path: path.into(),
            message: message.into(),
        });
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, SpecErrors> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(SpecErrors(self.0)),
        }
    }

    /// An absolute path without `..`, as it may be created inside the root.
    fn inner_path(&mut self, field: &str, path: &Path) -> PathBuf {
        if !path.is_absolute() {
            self.add(field, format!("`{}` is not absolute", path.display()));
        } else if path.components().any(|part| part == Component::ParentDir) {
            self.add(field, format!("`{}` contains `..`", path.display()));
        } else if path.as_os_str().as_bytes().contains(&0) {
            self.add(field, "contains a NUL byte");
        }
        path.components().collect()
    }

    fn c_string(&mut self, field: &str, text: &str) -> CString {
        CString::new(text).unwrap_or_else(|_| {
            self.add(field, "contains a NUL byte");
            CString::default()
        })
    }
}

/// The whole plan of a container.
pub(crate) fn plan(spec: &Spec, source: &Source) -> Result<Plan, SpecErrors> {
    plan_for(spec, source, modules(spec, spec.process.as_ref()))
}

/// The modules of this host, asked only where the answer counts.
fn modules(spec: &Spec, process: Option<&Process>) -> Modules {
    let by_process = |process: &Process| {
        !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty()
    };
    let by_linux = |linux: &Linux| !linux.mount_label.is_empty();
    if process.is_some_and(by_process) || spec.linux.as_ref().is_some_and(by_linux) {
        Modules::probe()
    } else {
        Modules::default()
    }
}

/// As [`plan`], on a host with these security modules.
pub(crate) fn plan_for(spec: &Spec, source: &Source, modules: Modules) -> Result<Plan, SpecErrors> {
    let mut errors = Errors::default();
    unsupported::check(spec, modules, &mut errors);
    check_id(&source.id, &mut errors);
    let none = Linux::default();
    let linux = match &spec.linux {
        Some(linux) => linux,
        None => {
            errors.add("linux", "is missing");
            &none
        }
    };
    let namespaces = linux::namespaces(linux, &mut errors);
    users::check_mounts(spec, &namespaces.ids, &mut errors);
    linux::check_joined_mounts(spec, linux, &namespaces, &mut errors);
    linux::names(spec, &namespaces, &mut errors);
    let sysctls = linux::sysctls(linux, &namespaces, &mut errors);
    let cgroup = linux::cgroup(linux, source, &mut errors);
    let rootfs = rootfs::plan(spec, linux, source, &namespaces, &mut errors);
    let hooks = hooks::plan(spec, &mut errors);
    let process = match &spec.process {
        Some(process) => {
            users::check_process("process", process, &namespaces.ids, &mut errors);
            let process = process::plan("process", process, linux, modules, &mut errors);
            Some(process)
        }
        None => {
            errors.add("process", "is missing");
            None
        }
    };
    let process = process.map(|mut process| {
        name_container(&mut process, spec, source);
        process
    });
    let net_devices = netdev::devices(linux, &namespaces, &mut errors);
    let plan = process.map(|process| Plan {
        net_devices,
        id: source.id.clone(),
        bundle: source.bundle.clone(),
        namespaces,
        hostname: Some(spec.hostname.clone()).filter(|name| !name.is_empty()),
        domainname: Some(spec.domainname.clone()).filter(|name| !name.is_empty()),
        rootfs,
        sysctls,
        process,
        cgroup,
        hooks,
        oci_version: spec.version.clone(),
        annotations: spec.annotations.clone(),
    });
    errors.finish(plan)
}

/// The plan of a further process in the container of `spec`.
pub(crate) fn exec_plan(
    spec: &Spec,
    process: &Process,
    target_pid: i32,
    cgroup: Option<PathBuf>,
) -> Result<ExecPlan, SpecErrors> {
    let mut errors = Errors::default();
    unsupported::check_process(process, "process", &mut errors);
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&none);
    let inherited = spec
        .process
        .as_ref()
        .map_or_else(|| process.clone(), |init| process::inherit(process, init));
    let ids = users::maps(linux, &mut errors);
    users::check_process("process", &inherited, &ids, &mut errors);
    let modules = modules(spec, Some(&inherited));
    let mut process = process::plan("process", &inherited, linux, modules, &mut errors);
    if let Some(listener) = listener(&mut process) {
        listener.state = json!({
            "ociVersion": spec.version,
            "status": "running",
            "pid": target_pid,
            "annotations": spec.annotations,
        });
    }
    errors.finish(Some(ExecPlan {
        target_pid,
        process,
        cgroup,
        cgroup_is_exact: false,
        wait_while_frozen: false,
    }))
}

fn listener(process: &mut ProcessPlan) -> Option<&mut Listener> {
    process.seccomp.as_mut()?.listener.as_mut()
}

/// The state of a container that is told of its first process is `created`: that is started next.
fn name_container(process: &mut ProcessPlan, spec: &Spec, source: &Source) {
    if let Some(listener) = listener(process) {
        listener.state = json!({
            "ociVersion": spec.version,
            "id": source.id,
            "status": "created",
            "bundle": source.bundle,
            "annotations": spec.annotations,
        });
    }
}

fn check_id(id: &str, errors: &mut Errors) {
    if !crate::state::is_id(id) {
        errors.add("id", crate::state::bad_id(id));
    }
}
