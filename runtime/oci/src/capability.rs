//! Capabilities by name and number (linux/capability.h, capabilities(7)).

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

/// A set of capabilities, each the bit of its number, as the kernel's own masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySet(pub u64);

impl std::ops::BitOrAssign for CapabilitySet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl CapabilitySet {
    /// Whether all of `other` are in it.
    pub fn has(self, other: CapabilitySet) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The set of one capability, named in any case, with or without `CAP_`.
pub fn of_name(name: &str) -> Option<CapabilitySet> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.trim_start_matches("CAP_");
    let at = NAMES.iter().position(|known| *known == bare)?;
    Some(CapabilitySet(1 << at))
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
    use super::*;

    #[test]
    fn every_name_has_its_number() {
        for (number, name) in NAMES.iter().enumerate() {
            assert_eq!(of_name(name), Some(CapabilitySet(1 << number)), "{name}");
        }
        assert_eq!(of_name("cap_kill"), of_name("CAP_KILL"));
        assert_eq!(of_name("CAP_FLY"), None);
        assert_eq!(names(SYS_ADMIN | 1 << 8), ["CAP_SETPCAP", "CAP_SYS_ADMIN"]);
    }
}
