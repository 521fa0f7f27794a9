//! What limits come to in the files and programs of a group, for comparing both.

use std::collections::BTreeMap;
use std::io;

use berth_sys::bpf::{self, Instruction};

use super::limits::FILTER_NAME;
use super::{Cgroup, CgroupError, devices, resources};
use crate::spec::config::{LinuxDeviceCgroup, LinuxResources};

/// What `resources` asks to be written, by file; of several values for one file each has a line.
pub(crate) fn requested_files(
    resources: &LinuxResources,
) -> Result<BTreeMap<String, String>, CgroupError> {
    let mut out = BTreeMap::<String, String>::new();
    for setting in resources::settings(resources)? {
        out.entry(setting.file)
            .and_modify(|value| {
                value.push('\n');
                value.push_str(&setting.value);
            })
            .or_insert(setting.value);
    }
    Ok(out)
}

/// The program for these rules; none where there are none.
pub(crate) fn requested_device_program(
    rules: &[LinuxDeviceCgroup],
) -> Result<Option<Vec<Instruction>>, CgroupError> {
    let rules = devices::rules(rules)?;
    Ok((!rules.is_empty()).then(|| devices::program(&rules)))
}

/// The program for these rules as the verifier leaves it: it is loaded once more.
pub(crate) fn expected_device_program(rules: &[LinuxDeviceCgroup]) -> io::Result<Vec<Instruction>> {
    let program = requested_device_program(rules).map_err(io::Error::other)?;
    let program = program.unwrap_or_default();
    bpf::instructions(&bpf::load_device_filter(FILTER_NAME, &program)?)
}

/// The device filters of ours that are attached to a group itself.
pub(crate) fn device_programs(group: &Cgroup) -> io::Result<Vec<Vec<Instruction>>> {
    bpf::device_filters(group, FILTER_NAME)
}
