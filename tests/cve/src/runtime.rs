//! The runtime under attack, as a program with runc's command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// An OCI runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Its name, from its own `--version`.
    pub name: String,
    /// Its release.
    pub version: String,
    /// Where it lies.
    pub program: PathBuf,
}

impl Runtime {
    /// Asks the program who it is.
    pub fn open(program: &Path) -> Result<Self> {
        let shown = program.display();
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("cannot run {shown}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().next().unwrap_or_default();
        let mut words = line.split_whitespace().filter(|word| *word != "version");
        let (name, version) = (words.next(), words.next());
        ensure!(output.status.success(), "{shown} --version failed");
        Ok(Self {
            name: name
                .with_context(|| format!("{shown} does not tell its name"))?
                .to_owned(),
            version: version.unwrap_or_default().to_owned(),
            program: program.canonicalize()?,
        })
    }

    /// A copy of the program in `folder`: an attack that succeeds spoils the copy alone.
    pub(crate) fn copy_into(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let copy = folder.join(&self.name);
        fs::copy(&self.program, &copy)
            .with_context(|| format!("cannot copy {}", self.program.display()))?;
        Ok(copy)
    }

    /// Whether a library that its loader preloads runs inside it.
    pub(crate) fn is_dynamic(&self) -> bool {
        let listing = Command::new("ldd").arg(&self.program).output();
        listing.is_ok_and(|listing| {
            listing.status.success() && String::from_utf8_lossy(&listing.stdout).contains("libc.so")
        })
    }
}
