//! Peers built from Go modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Peer;
use crate::preflight::{self, Need};
use crate::process;

/// The oldest Go that builds every module here.
const MINOR: u32 = 26;

/// What programs that link to C need.
const C: [Need; 3] = [
    Need {
        package: "gcc",
        program: "gcc",
        why: "compiles the C part of runc",
    },
    Need {
        package: "pkg-config",
        program: "pkg-config",
        why: "finds libseccomp for runc",
    },
    Need {
        package: "libseccomp-dev",
        program: "../include/seccomp.h",
        why: "runc filters system calls with it",
    },
];

/// Commands of one Go module.
#[derive(Debug)]
pub struct Module {
    /// The module's version, without `v`.
    pub version: &'static str,
    /// Build tags, separated by commas.
    pub tags: &'static str,
    /// Whether it links to C.
    pub cgo: bool,
    /// Import paths.
    pub commands: &'static [&'static str],
}

/// A Go that is new enough.
pub fn find() -> Option<PathBuf> {
    at_least(MINOR)
}

/// This machine's own Go, if its release is `1.minor` or later.
pub fn at_least(minor: u32) -> Option<PathBuf> {
    let fixed = PathBuf::from("/usr/local/go/bin/go");
    let go = process::find("go").or_else(|| fixed.is_file().then_some(fixed))?;
    let version = process::output(Command::new(&go).args(["env", "GOVERSION"])).ok()?;
    (minor_of(&version)? >= minor).then_some(go)
}

impl Module {
    /// Builds the commands into the folder `into`.
    pub fn build(&self, go: &Path, name: &str, into: &Path) -> Result<()> {
        eprintln!(
            "xtask: building {name} {} from its Go module; this takes a minute or two",
            self.version
        );
        if self.cgo {
            preflight::ensure(&C)?;
        }
        let mut command = Command::new(go);
        command
            .env("GOBIN", into)
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            .args(["install", "-trimpath", "-tags", self.tags]);
        let versioned = |path: &&str| format!("{path}@v{}", self.version);
        command.args(self.commands.iter().map(versioned));
        process::output(&mut command).with_context(|| format!("cannot build {name}"))?;
        Peer::note_version(into, self.version)
    }
}

/// The minor number of `go1.26.8`.
fn minor_of(version: &str) -> Option<u32> {
    let rest = version.trim().strip_prefix("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_minor_number_of_go() {
        assert_eq!(minor_of("go1.26.8\n"), Some(26));
        assert_eq!(minor_of("go1.27rc1"), Some(27));
        assert_eq!(minor_of("devel +abc"), None);
    }
}
