//! Which case fails when which defence of `berth-oci` is left out: a case that no runtime at hand
//! fails shows nothing otherwise.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// The variable that names the fault, in a build of `berth-oci` for tests.
const VARIABLE: &str = "BERTH_FAULT";

/// A case, and the fault (`berth_oci::fault`) under which it has to fail.
pub const PROOFS: [(&str, &str); 6] = [
    ("exec-is-watched", "processes can be looked into"),
    ("kernel-upcalls", "a path can be written"),
    ("hidden-paths", "a path is not masked"),
    (
        "cgroup-file-system-is-writable",
        "every mount can be written",
    ),
    (
        "environment-and-descriptors-of-the-caller",
        "a variable more",
    ),
    (
        "session-keyring-of-its-own",
        "the session keyring is inherited",
    ),
];

/// What a case said under its fault.
pub struct Proof {
    /// The case.
    pub case: &'static str,
    /// What was left out.
    pub fault: &'static str,
    /// Its line: `pass`, `fail` or `skipped`, and why.
    pub said: String,
}

impl Proof {
    /// Runs the case with this very program against a runtime that has the fault.
    ///
    /// # Errors
    /// The suite does not come to the case.
    pub fn of(
        (case, fault): (&'static str, &'static str),
        runtime: &Path,
        probe: &Path,
    ) -> Result<Self> {
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
            case,
            fault,
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
        for (case, _) in PROOFS {
            assert!(crate::all().iter().any(|one| one.name == case), "{case}");
        }
    }
}
