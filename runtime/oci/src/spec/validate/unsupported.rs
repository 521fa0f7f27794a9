//! Fields that berth does not honour: each is refused by its name, never ignored.

use oci_spec::runtime::{Linux, Process, Spec};

use super::Errors;
use crate::lsm::Modules;

pub(super) fn check(spec: &Spec, modules: Modules, errors: &mut Errors) {
    let version = spec.version();
    if !version.starts_with("1.") {
        errors.add(
            "ociVersion",
            format!("`{version}` is not a version 1 specification"),
        );
    }
    let platforms = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    refuse(&platforms, "", errors);
    if let Some(linux) = spec.linux() {
        check_linux(linux, modules, errors);
    }
    if let Some(process) = spec.process() {
        check_process(process, "process", errors);
    }
}

fn check_linux(linux: &Linux, modules: Modules, errors: &mut Errors) {
    let labelled = linux.mount_label().as_ref();
    if labelled.is_some_and(|label| !label.is_empty()) && !modules.selinux {
        errors.add("linux.mountLabel", "selinux is not enabled on this host");
    }
    let fields = [("intelRdt", linux.intel_rdt().is_some())];
    refuse(&fields, "linux.", errors);
}

pub(super) fn check_process(process: &Process, path: &str, errors: &mut Errors) {
    let fields = [
        ("commandLine", process.command_line().is_some()),
        (
            "user.username",
            process
                .user()
                .username()
                .as_ref()
                .is_some_and(|name| !name.is_empty()),
        ),
    ];
    refuse(&fields, &format!("{path}."), errors);
}

fn refuse(fields: &[(&str, bool)], prefix: &str, errors: &mut Errors) {
    for (field, _) in fields.iter().filter(|(_, present)| *present) {
        errors.add(format!("{prefix}{field}"), "is not supported");
    }
}
