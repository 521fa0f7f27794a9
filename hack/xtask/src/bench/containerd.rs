//! containerd with runc and the reference plugins, set up beside nobody's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::server::Setup;
use crate::cache::Cache;
use crate::peers::{self, Peer};

/// The programs.
pub struct Peers {
    containerd: Peer,
    runc: Peer,
    plugins: Peer,
}

/// Where shims put their sockets, whatever the configuration says.
const SHIM_SOCKETS: [&str; 2] = ["/run/containerd", "/run/containerd/s"];

/// Removes the folders that shims make outside the configured ones, when dropped, where
/// they were not there before.
pub struct Traces(Vec<&'static str>);

impl Traces {
    /// Notes what is there.
    pub fn note() -> Self {
        let absent = |path: &&str| !Path::new(path).exists();
        Self(SHIM_SOCKETS.into_iter().filter(absent).collect())
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // fails when it was not made, or when somebody else uses it now
            let _ = fs::remove_dir(path);
        }
    }
}

impl Peers {
    /// All of them, built or unpacked.
    pub fn have(cache: &Cache) -> Result<Self> {
        Ok(Self {
            containerd: peers::containerd(cache)?,
            runc: peers::runc(cache)?,
            plugins: peers::cni_plugins(cache)?,
        })
    }

    /// The daemon with its state in `state` (a short path: sockets are in it), everything
    /// else in `folder`, networks from `networks`, and this image for sandboxes.
    pub fn setup(
        &self,
        state: &Path,
        folder: &Path,
        networks: &Path,
        pause: &str,
    ) -> Result<Setup> {
        let socket = state.join("c.sock");
        let file = folder.join("config.toml");
        fs::write(&file, self.configuration(state, folder, networks, pause))?;
        let mut command = Command::new(self.containerd.program("containerd"));
        command.arg("--config").arg(&file);
        // it finds its shim there
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            std::iter::once(self.containerd.folder.clone()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders)?);
        let [containerd, runc, plugins] =
            [&self.containerd, &self.runc, &self.plugins].map(|peer| &peer.version);
        Ok(Setup {
            name: format!("containerd {containerd} + runc {runc} + CNI plugins {plugins}"),
            command,
            socket,
            keeper: "containerd-shim",
            folder: folder.into(),
        })
    }

    /// Without CAP_SYS_RESOURCE no process may lower its OOM score: restricted to what holds.
    fn configuration(&self, state: &Path, folder: &Path, networks: &Path, pause: &str) -> String {
        let (state, folder, networks) = (state.display(), folder.display(), networks.display());
        let runc = self.runc.program("runc");
        format!(
            "version = 4\n\
             root = '{folder}/root'\n\
             state = '{state}/c'\n\
             disabled_plugins = ['io.containerd.nri.v1.nri']\n\
             [plugins.'io.containerd.server.v1.grpc']\n\
             address = '{state}/c.sock'\n\
             [plugins.'io.containerd.server.v1.ttrpc']\n\
             address = '{state}/c.ttrpc'\n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
             sandbox = '{pause}'\n\
             [plugins.'io.containerd.cri.v1.runtime']\n\
             restrict_oom_score_adj = true\n\
             netns_mounts_under_state_dir = true\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n\
             runtime_type = 'io.containerd.runc.v2'\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n\
             BinaryName = '{}'\n\
             Root = '{state}/runc'\n\
             SystemdCgroup = false\n\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\n\
             bin_dirs = ['{}']\n\
             conf_dir = '{networks}'\n",
            runc.display(),
            self.plugins.folder.display(),
        )
    }
}
