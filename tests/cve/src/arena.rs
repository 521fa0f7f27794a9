//! Where one case takes place: a folder of its own, a copy of the runtime, a canary.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::bundle::Bundle;
use crate::decoy::Decoy;
use crate::runtime::Runtime;

/// What the canary holds. A container that can read it has reached the host.
pub(crate) const CANARY: &str = "only the host may read this";

/// The place of one case; it goes at the end.
pub struct Arena {
    folder: tempfile::TempDir,
    /// The runtime under attack.
    pub(crate) runtime: Runtime,
    program: PathBuf,
    probe: PathBuf,
    /// Rounds of a race.
    pub(crate) rounds: usize,
    /// The whole table instead of a sample.
    pub(crate) long: bool,
    /// Where the racers' random pauses start.
    pub(crate) seed: u64,
}

impl Arena {
    /// A folder below `/tmp` with everything a case needs.
    pub(crate) fn new(runtime: &Runtime, probe: &Path, terms: &crate::Terms) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("berth-cve-").tempdir()?;
        let program = runtime.copy_into(&folder.path().join("program"))?;
        // on the same file system, so that every root file system gets it as a hard link
        let own_probe = folder.path().join("probe");
        fs::copy(probe, &own_probe)?;
        fs::write(folder.path().join("canary"), CANARY)?;
        Ok(Self {
            runtime: runtime.clone(),
            program,
            probe: own_probe,
            rounds: terms.rounds(),
            long: terms.long,
            seed: terms.seed,
            folder,
        })
    }

    /// Where it is on the host.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The copy of the runtime that all calls of this case run.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The digest of that copy.
    pub(crate) fn program_digest(&self) -> Result<String> {
        Ok(hex::encode(Sha256::digest(fs::read(&self.program)?)))
    }

    /// The static probe on the host.
    pub(crate) fn probe(&self) -> &Path {
        &self.probe
    }

    /// A file of the host with [`CANARY`] in it.
    pub(crate) fn canary(&self) -> PathBuf {
        self.folder().join("canary")
    }

    /// The runtime's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// A folder below the arena, made when absent.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A folder of the host that no container is given and that must stay as it is.
    pub(crate) fn decoy(&self, name: &str) -> Result<Decoy> {
        Decoy::new(self.make(name)?)
    }

    /// A bundle whose program is the probe with these arguments.
    pub(crate) fn bundle(&self, name: &str, arguments: &[&str]) -> Result<Bundle<'_>> {
        Bundle::new(self, name, arguments)
    }
}
