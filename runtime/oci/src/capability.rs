//! Capabilities by name and number (linux/capability.h, capabilities(7)).

use oci_spec::runtime::Capability;

/// Names in the order of their numbers, without the prefix `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// `CAP_SETGID` and `CAP_SETUID`.
pub(crate) const SET_IDS: u64 = 0b11 << 6;

/// `CAP_SYS_ADMIN`.
pub(crate) const SYS_ADMIN: u64 = 1 << 21;

/// The kernel's number of a capability.
pub fn number(capability: Capability) -> u32 {
    let name = capability.to_string();
    let at = NAMES.iter().position(|known| *known == name);
    u32::try_from(at.expect("NAMES has every capability of the specification")).unwrap_or_default()
}

/// Full names of the capabilities in a mask, in the order of their numbers.
pub fn names(mask: u64) -> Vec<String> {
    let all = NAMES.iter().enumerate();
    all.filter(|(bit, _)| mask & (1 << bit) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn every_name_has_its_number() {
        for (number_of, name) in NAMES.iter().enumerate() {
            let capability = Capability::from_str(name).unwrap();
            assert_eq!(number(capability) as usize, number_of, "{name}");
        }
        assert_eq!(names(SYS_ADMIN | 1 << 8), ["CAP_SETPCAP", "CAP_SYS_ADMIN"]);
    }
}
