//! Capability sets (capabilities(7)).

use std::collections::BTreeSet;

use berth_oci::capability;
use berth_proto::cri;

use super::{HostInput, SpecError};
use crate::config::CapabilitySet;

const MINIMAL: [&str; 9] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "KILL",
];

const CONTAINERD: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A container's capabilities, as `CAP_` names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding, effective and permitted.
    pub held: BTreeSet<String>,
    /// Ambient, and then also inheritable.
    pub ambient: BTreeSet<String>,
}

/// The names of the capabilities in the bit mask `CapBnd` of `/proc/self/status`.
pub fn bounding_set(status: &str) -> BTreeSet<String> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let mask = line
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    capability::names(mask).into_iter().collect()
}

/// What the request leaves of the defaults, adds, and drops: `ALL` first, then single
/// names, dropping before adding where `ALL` is dropped and the other way round else.
pub fn capabilities(
    security: &cri::LinuxContainerSecurityContext,
    host: &HostInput<'_>,
) -> Result<Capabilities, SpecError> {
    let asked = security.capabilities.clone().unwrap_or_default();
    if security.privileged {
        let ambient = names("add_ambient_capabilities", &asked.add_ambient_capabilities)?;
        return Ok(Capabilities {
            held: host.bounding.clone(),
            ambient,
        });
    }
    let add = names("add_capabilities", &asked.add_capabilities)?;
    let drop = names("drop_capabilities", &asked.drop_capabilities)?;
    let mut held: BTreeSet<String> = if add.contains("CAP_ALL") {
        host.bounding.clone()
    } else if drop.contains("CAP_ALL") {
        BTreeSet::new()
    } else {
        defaults(host.default_capabilities)
    };
    let ambient = names("add_ambient_capabilities", &asked.add_ambient_capabilities)?;
    held.extend(
        add.iter()
            .chain(&ambient)
            .filter(|name| *name != "CAP_ALL")
            .cloned(),
    );
    held.retain(|name| !drop.contains(name));
    Ok(Capabilities { held, ambient })
}

fn defaults(set: CapabilitySet) -> BTreeSet<String> {
    let names: &[&str] = match set {
        CapabilitySet::Minimal => &MINIMAL,
        CapabilitySet::Containerd => &CONTAINERD,
    };
    names.iter().map(|name| format!("CAP_{name}")).collect()
}

/// Names in any case, with or without `CAP_`, as `CAP_` names.
fn names(list: &str, given: &[String]) -> Result<BTreeSet<String>, SpecError> {
    let known = |name: &str| {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned();
        if bare == "ALL" || capability::NAMES.contains(&bare.as_str()) {
            return Ok(format!("CAP_{bare}"));
        }
        Err(SpecError::Invalid {
            field: format!("linux.security_context.capabilities.{list}"),
            reason: format!("unknown capability `{name}`"),
        })
    };
    given.iter().map(|name| known(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_read_from_the_kernels_mask() {
        let set = bounding_set("Name:\tx\nCapBnd:\t0000000000200021\n");
        let expected = ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"].map(str::to_owned);
        assert_eq!(set, expected.into());
    }
}
