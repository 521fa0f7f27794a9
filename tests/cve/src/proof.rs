//! Which case fails when which defence of `berth-oci` is left out: a case that no runtime at hand
//! fails shows nothing otherwise.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// The variable that names the fault, in a build of `berth-oci` for tests.
const VARIABLE: &str = "BERTH_FAULT";

/// A case, and the fault (`berth_oci::fault`) under which it has to fail.
#[derive(Clone, Copy)]
pub struct Claim {
    /// The case's name.
    pub case: &'static str,
    /// The fault's.
    pub fault: &'static str,
    /// Whether it takes a build that loads libraries: a static program has no loader to attack.
    pub dynamic: bool,
}

impl Claim {
    const fn new(case: &'static str, fault: &'static str) -> Self {
        Self {
            case,
            fault,
            dynamic: false,
        }
    }
}

/// Every claim, in the order of the cases.
pub const PROOFS: [Claim; 16] = [
    Claim::new(
        "working-directory-is-a-descriptor",
        "the working directory is any",
    ),
    Claim::new("entrypoint-is-the-runtime", "the program can be written"),
    Claim {
        dynamic: true,
        ..Claim::new("library-inside-the-runtime", "the program can be written")
    },
    Claim::new("exec-is-watched", "processes can be looked into"),
    Claim::new("mount-target-exchanged", "mount targets are followed"),
    Claim::new("link-at-a-kernel-place", "mount targets are followed"),
    Claim::new("kernel-upcalls", "a path can be written"),
    Claim::new("hidden-paths", "a path is not masked"),
    Claim::new(
        "cgroup-file-system-is-writable",
        "every mount can be written",
    ),
    Claim::new("release-agent-by-a-user-namespace", "CAP_SYS_ADMIN is kept"),
    Claim::new("console-is-a-link", "the console is followed"),
    Claim::new(
        "environment-and-descriptors-of-the-caller",
        "a variable more",
    ),
    Claim::new(
        "session-keyring-of-its-own",
        "the session keyring is inherited",
    ),
    Claim::new("configuration-that-overflows", "lengths have 16 bits"),
    Claim::new("restore-of-an-image", "restore is taken"),
    Claim::new(
        "name-service-of-the-image",
        "the image's name service is asked",
    ),
];

/// What a case said under its fault.
pub struct Proof {
    /// What was claimed.
    pub claim: Claim,
    /// Its line: `pass`, `fail` or `skipped`, and why.
    pub said: String,
}

impl Proof {
    /// Runs the case with this very program against a runtime that has the fault.
    ///
    /// # Errors
    /// The suite does not come to the case.
    pub fn of(claim: Claim, runtime: &Path, probe: &Path) -> Result<Self> {
        let Claim { case, fault, .. } = claim;
        let output = Command::new(std::env::current_exe()?)
            .arg("--runtime")
            .arg(runtime)
            .arg("--probe")
            .arg(probe)
            .args(["--only", case])
            .env(VARIABLE, fault)
            .output()
            .context("cannot run the suite again")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.lines().find(|line| line.contains(case));
        let said = said.with_context(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("`{case}` did not run with the fault `{fault}`: {errors}")
        })?;
        Ok(Self {
            claim,
            said: said.trim().to_owned(),
        })
    }

    /// Whether the attack came through; a case that broke shows nothing.
    pub fn bites(&self) -> bool {
        self.said.starts_with("fail ") && !self.said.contains("the case broke")
    }

    /// Whether the case cannot be had here.
    pub fn is_skipped(&self) -> bool {
        self.said.starts_with("skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_of_a_proof_is_there() {
        for Claim { case, .. } in PROOFS {
            assert!(crate::all().iter().any(|one| one.name == case), "{case}");
        }
    }
}
