//! Fields that berth does not honour: each is refused by its name, never ignored.

use super::Errors;
use crate::lsm::Modules;
use crate::spec::config::{Linux, Process, Spec};

pub(super) fn check(spec: &Spec, modules: Modules, errors: &mut Errors) {
    let version = &spec.version;
    if !version.starts_with("1.") {
        errors.add(
            "ociVersion",
            format!("`{version}` is not a version 1 specification"),
        );
    }
    let platforms = [
        ("freebsd", spec.freebsd.is_some()),
        ("solaris", spec.solaris.is_some()),
        ("windows", spec.windows.is_some()),
        ("vm", spec.vm.is_some()),
        ("zos", spec.zos.is_some()),
    ];
    refuse(&platforms, "", errors);
    if let Some(linux) = &spec.linux {
        check_linux(linux, modules, errors);
    }
    if let Some(process) = &spec.process {
        check_process(process, "process", errors);
    }
}

fn check_linux(linux: &Linux, modules: Modules, errors: &mut Errors) {
    if !linux.mount_label.is_empty() && !modules.selinux {
        errors.add("linux.mountLabel", "selinux is not enabled on this host");
    }
    let fields = [("intelRdt", linux.intel_rdt.is_some())];
    refuse(&fields, "linux.", errors);
}

pub(super) fn check_process(process: &Process, path: &str, errors: &mut Errors) {
    let fields = [
        ("commandLine", process.command_line.is_some()),
        ("user.username", !process.user.username.is_empty()),
    ];
    refuse(&fields, &format!("{path}."), errors);
}

fn refuse(fields: &[(&str, bool)], prefix: &str, errors: &mut Errors) {
    for (field, _) in fields.iter().filter(|(_, present)| *present) {
        errors.add(format!("{prefix}{field}"), "is not supported");
    }
}
