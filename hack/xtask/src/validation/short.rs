//! The short form: a few programs against berth-oci alone, as part of the VM ring.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::gaps::Gaps;
use super::report::Report;
use super::{OURS, execute, programs};
use crate::cache::Cache;
use crate::test::Count;
use crate::vm;

/// One or two of each kind; most others repeat the same checks inside a container.
const PROGRAMS: [&str; 12] = [
    "create",
    "hooks_stdin",
    "kill_no_effect",
    "killsig",
    "linux_masked_paths",
    "linux_ns_path_type",
    "linux_readonly_paths",
    "linux_seccomp",
    "linux_uid_mappings",
    "misc_props",
    "prestart_fail",
    "process_user",
];
const RESULTS: &str = "validation.json";
const LOG: &str = "validation.log";

/// The programs, ready to run.
pub struct Short {
    programs: PathBuf,
}

impl Short {
    /// Builds the programs, with what that needs.
    pub fn prepare() -> Result<Self> {
        let programs = programs::ensure(&Cache::open()?)?;
        Ok(Self { programs })
    }

    /// What it counts where the programs cannot be had: their Go modules come from the network.
    pub fn lacking(error: &anyhow::Error) -> Count {
        println!("  skipped: the OCI validation programs: {error:#}");
        Count {
            skipped: PROGRAMS.len(),
            ..Count::default()
        }
    }

    /// What the guest does after [`vm::setup`].
    pub fn script(&self) -> String {
        let only: Vec<String> = PROGRAMS
            .iter()
            .map(|name| format!("--only {name}"))
            .collect();
        format!(
            "/data/xtask oci-validation --programs {} --results /mnt/rw/{RESULTS} {} \
             --against {OURS}={}/berth-oci >/mnt/rw/{LOG} 2>&1\n",
            vm::quote(&self.programs.display().to_string()),
            only.join(" "),
            vm::PROGRAMS,
        )
    }

    /// Counts programs that end as the gaps say, and tells what does not.
    pub fn count(&self, share: &Path) -> Count {
        let report = execute::load(&share.join(RESULTS)).and_then(|outcomes| {
            let report = Report::new(&[OURS], &outcomes, &Gaps::read()?);
            report.print_problems(&mut std::io::stdout().lock())?;
            Ok(report)
        });
        let (passed, failed) = match report {
            Ok(report) => report.programs(),
            Err(error) => {
                let log = std::fs::read_to_string(share.join(LOG)).unwrap_or_default();
                println!("oci-validation: {error:#}\n{log}");
                (0, 1)
            }
        };
        Count {
            passed,
            failed,
            skipped: 0,
        }
    }
}
