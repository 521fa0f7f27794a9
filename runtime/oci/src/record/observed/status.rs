//! The text files of a process: status, limits, cgroup, id maps (proc_pid_status(5) and its like).

use std::collections::BTreeMap;

/// The lines of `/proc/<pid>/status` that count here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::record) struct Status {
    pub(in crate::record) umask: u32,
    /// Real, effective, saved, file system.
    pub(in crate::record) uids: [u32; 4],
    pub(in crate::record) gids: [u32; 4],
    pub(in crate::record) groups: Vec<u32>,
    pub(in crate::record) inheritable: u64,
    pub(in crate::record) permitted: u64,
    pub(in crate::record) effective: u64,
    pub(in crate::record) bounding: u64,
    pub(in crate::record) ambient: u64,
    pub(in crate::record) no_new_privs: bool,
    /// 0 disabled, 1 strict, 2 filter.
    pub(in crate::record) seccomp: u32,
}

impl Status {
    pub(in crate::record) fn parse(text: &str) -> Status {
        let mut out = Status::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            let mask = || u64::from_str_radix(value, 16).unwrap_or(u64::MAX);
            match key {
                "Umask" => out.umask = u32::from_str_radix(value, 8).unwrap_or(u32::MAX),
                "Uid" => out.uids = four(value),
                "Gid" => out.gids = four(value),
                "Groups" => out.groups = numbers(value),
                "CapInh" => out.inheritable = mask(),
                "CapPrm" => out.permitted = mask(),
                "CapEff" => out.effective = mask(),
                "CapBnd" => out.bounding = mask(),
                "CapAmb" => out.ambient = mask(),
                "NoNewPrivs" => out.no_new_privs = value == "1",
                "Seccomp" => out.seccomp = value.parse().unwrap_or(u32::MAX),
                _ => {}
            }
        }
        out
    }
}

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

fn four(text: &str) -> [u32; 4] {
    let mut out = [u32::MAX; 4];
    for (slot, number) in out.iter_mut().zip(numbers(text)) {
        *slot = number;
    }
    out
}

/// Lines of uid_map or gid_map; empty for the map of the first namespace, which maps all onto itself.
pub(super) fn id_map(text: &str) -> Vec<[u32; 3]> {
    let lines = text.lines().filter_map(|line| {
        let numbers = numbers(line);
        <[u32; 3]>::try_from(numbers.as_slice()).ok()
    });
    lines.filter(|line| *line != [0, 0, u32::MAX]).collect()
}

/// Path of the cgroup v2 line.
pub(super) fn cgroup(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    line.map(str::to_owned)
}

/// Names of the kernel's table with those of setrlimit(2).
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "RLIMIT_CPU"),
    ("Max file size", "RLIMIT_FSIZE"),
    ("Max data size", "RLIMIT_DATA"),
    ("Max stack size", "RLIMIT_STACK"),
    ("Max core file size", "RLIMIT_CORE"),
    ("Max resident set", "RLIMIT_RSS"),
    ("Max processes", "RLIMIT_NPROC"),
    ("Max open files", "RLIMIT_NOFILE"),
    ("Max locked memory", "RLIMIT_MEMLOCK"),
    ("Max address space", "RLIMIT_AS"),
    ("Max file locks", "RLIMIT_LOCKS"),
    ("Max pending signals", "RLIMIT_SIGPENDING"),
    ("Max msgqueue size", "RLIMIT_MSGQUEUE"),
    ("Max nice priority", "RLIMIT_NICE"),
    ("Max realtime priority", "RLIMIT_RTPRIO"),
    ("Max realtime timeout", "RLIMIT_RTTIME"),
];

/// `soft:hard` by name.
pub(super) fn limits(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for line in text.lines().skip(1) {
        let found = LIMITS.iter().find_map(|(shown, name)| {
            let rest = line.strip_prefix(shown)?;
            Some((name, rest))
        });
        if let Some((name, rest)) = found {
            let mut columns = rest.split_whitespace();
            if let (Some(soft), Some(hard)) = (columns.next(), columns.next()) {
                out.insert((*name).to_owned(), format!("{soft}:{hard}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_this_process_are_read() {
        let mut own = crate::record::observed::Reader::own().unwrap();
        let status = Status::parse(&own.read("status").unwrap());
        assert_eq!(status.uids[1], rustix::process::geteuid().as_raw());
        assert!(status.umask <= 0o777 && status.seccomp <= 2);
        assert!(status.bounding.leading_zeros() > 20);
        let all = limits(&own.read("limits").unwrap());
        assert_eq!(all.len(), LIMITS.len(), "{all:?}");
        assert!(all["RLIMIT_NOFILE"].contains(':'));
    }

    #[test]
    fn maps_and_groups_are_told() {
        assert_eq!(
            id_map("         0          0 4294967295\n"),
            Vec::<[u32; 3]>::new()
        );
        assert_eq!(
            id_map("0 100000 65536\n65536 1 2\n"),
            [[0, 100_000, 65536], [65536, 1, 2]]
        );
        assert_eq!(cgroup("12:cpu:/x\n0::/a/b\n").unwrap(), "/a/b");
        assert_eq!(cgroup("12:cpu:/x\n"), None);
    }
}
