//! Peers from the host's own Debian packages: unpacked, not installed, since some would
//! start as services.

use std::process::Command;

use anyhow::Result;

use super::Peer;
use crate::cache::Cache;
use crate::{apt, preflight, process};

/// A package with a peer.
pub struct Package {
    /// The package's name.
    pub name: &'static str,
    /// The folder of its programs.
    pub programs: &'static str,
}

impl Package {
    /// The package's programs, unpacked once into the cache.
    pub fn have(&self, cache: &Cache, peer: &'static str) -> Result<Peer> {
        let folder = cache.artifact(peer, "host suite", |into| {
            preflight::say(self.name, "no Go that builds its newest release is found");
            let archives = tempfile::tempdir()?;
            let archive = apt::download_for_host(self.name, archives.path())?;
            apt::unpack(&archive, into)?;
            let mut version = Command::new("dpkg-deb");
            version.arg("-f").arg(&archive).arg("Version");
            Peer::note_version(into, process::output(&mut version)?.trim())
        })?;
        Peer::open(peer, &folder, self.programs)
    }
}
