//! What a test needs of the machine, and what happens where it lacks.

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Set to `1`, a lacking need fails the test instead of skipping it.
const REQUIRE_ALL: &str = "BERTH_REQUIRE_ALL";

/// How many times longer than elsewhere anything may take here.
const PATIENCE: &str = "BERTH_TEST_PATIENCE";

/// Set to `1` on a machine that is thrown away afterwards.
const DISPOSABLE: &str = "BERTH_TEST_DISPOSABLE";

/// Something a test needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Effective user id 0.
    Root,
    /// A cgroup2 mount that has the memory and pids controllers.
    CgroupV2Controllers,
    /// A cgroup2 mount, with or without controllers.
    CgroupV2,
    /// CAP_SYS_RESOURCE in the effective set (capabilities(7), bit 24).
    SysResource,
    /// AppArmor enabled in the kernel.
    AppArmor,
    /// A machine that ends with the tests, so that what cannot be undone may be done: the
    /// reference VM, which says so by `BERTH_TEST_DISPOSABLE=1`.
    Disposable,
    /// This program in `$PATH`.
    Program(&'static str),
    /// This file or folder.
    File(&'static str),
}

/// Why a test did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped(
    /// What lacks.
    pub String,
);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

/// Runs `body` where every need is met. Where one lacks it prints
/// `skipped: reason`, which `cargo xtask test` counts, or panics with
/// `BERTH_REQUIRE_ALL=1`. An error of the body fails the test with its chain.
///
/// # Panics
/// On an error of the body, and on a lacking need where all are required.
pub fn test(needs: &[Need], body: impl FnOnce() -> anyhow::Result<()>) {
    if let Err(skipped) = check(needs) {
        assert!(!require_all(), "{skipped}, and {REQUIRE_ALL}=1");
        println!("{skipped}");
        return;
    }
    if let Err(error) = body() {
        panic!("{error:#}");
    }
}

/// The first need the machine lacks.
pub fn check(needs: &[Need]) -> Result<(), Skipped> {
    needs.iter().try_for_each(|need| need.check())
}

impl Need {
    fn check(self) -> Result<(), Skipped> {
        let (met, reason) = match self {
            Self::Root => (
                rustix::process::geteuid().is_root(),
                "needs root".to_owned(),
            ),
            Self::CgroupV2Controllers => (has_controllers(), "no cgroup v2 controllers".to_owned()),
            Self::CgroupV2 => (
                crate::leak::cgroup2_mount().is_some(),
                "no cgroup2 mount".to_owned(),
            ),
            Self::SysResource => (has_capability(24), "no CAP_SYS_RESOURCE".to_owned()),
            Self::AppArmor => {
                let enabled = read("/sys/module/apparmor/parameters/enabled");
                (enabled.trim() == "Y", "AppArmor is not enabled".to_owned())
            }
            Self::Disposable => (
                std::env::var(DISPOSABLE).is_ok_and(|value| value == "1"),
                "the machine outlives the test".to_owned(),
            ),
            Self::Program(name) => (in_path(name), format!("no {name} in PATH")),
            Self::File(path) => (Path::new(path).exists(), format!("no {path}")),
        };
        if met { Ok(()) } else { Err(Skipped(reason)) }
    }
}

/// The limit, as many times longer as `BERTH_TEST_PATIENCE` says: in an emulated machine
/// everything takes longer.
pub fn patient(limit: Duration) -> Duration {
    let times = std::env::var(PATIENCE).ok().and_then(|n| n.parse().ok());
    limit * times.unwrap_or(1)
}

fn require_all() -> bool {
    std::env::var(REQUIRE_ALL).is_ok_and(|value| value == "1")
}

fn has_controllers() -> bool {
    let Some(mount) = crate::leak::cgroup2_mount() else {
        return false;
    };
    let controllers = std::fs::read_to_string(mount.join("cgroup.controllers"));
    let controllers = controllers.unwrap_or_default();
    ["memory", "pids"]
        .iter()
        .all(|c| controllers.split_whitespace().any(|have| have == *c))
}

fn has_capability(bit: u32) -> bool {
    let status = read("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|set| set >> bit & 1 == 1)
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lacking_program_is_named() {
        let skipped = check(&[Need::Program("no-such-program")]).unwrap_err();
        assert_eq!(skipped.to_string(), "skipped: no no-such-program in PATH");
    }

    #[test]
    #[should_panic(expected = "cannot do it: because")]
    fn an_error_fails_with_its_chain() {
        test(&[], || {
            Err(anyhow::anyhow!("because").context("cannot do it"))
        });
    }
}
