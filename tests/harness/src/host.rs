//! A host of a test's own: network and mount namespace, and a temporary run root.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A step of making or using an isolated host that failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// unshare(2) of network and mount namespace; needs root.
    #[error("cannot make namespaces for an isolated host")]
    Unshare(#[source] nix::Error),
    /// The new mount table must not pass anything on to the machine's.
    #[error("cannot make the mount table private")]
    Private(#[source] nix::Error),
    /// The folder for the test's files.
    #[error("cannot make the run root")]
    RunRoot(#[source] io::Error),
    /// A program of the test could not be run.
    #[error("cannot run {program}")]
    Spawn {
        /// Its name.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A program of the test failed.
    #[error("{program} {arguments:?} failed: {stderr}")]
    Failed {
        /// Its name.
        program: String,
        /// What it was given.
        arguments: Vec<String>,
        /// What it printed.
        stderr: String,
    },
}

/// Stands in for the machine while a test's body runs.
///
/// Invariant: used only on the thread that entered the namespaces; programs
/// started from that thread are inside them too.
#[derive(Debug)]
pub struct Host {
    root: TempDir,
}

impl Host {
    /// Runs `body` on a thread of its own inside a new network namespace (lo is up)
    /// and a new private mount namespace. Links and mounts go with the thread.
    ///
    /// # Panics
    /// Passes a panic of the body on.
    pub fn isolated(body: impl FnOnce(&Self) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
        let joined = thread::scope(|scope| scope.spawn(|| body(&Self::enter()?)).join());
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The test's own folder: it takes the place of `/`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A folder below the root, made when absent.
    pub fn folder(&self, name: &str) -> Result<PathBuf, HostError> {
        let path = self.root().join(name);
        std::fs::create_dir_all(&path).map_err(HostError::RunRoot)?;
        Ok(path)
    }

    /// Runs a program inside the namespaces and returns its output.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, HostError> {
        let output = Command::new(program)
            .args(arguments)
            .output()
            .map_err(|source| HostError::Spawn {
                program: program.into(),
                source,
            })?;
        if !output.status.success() {
            return Err(HostError::Failed {
                program: program.into(),
                arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn enter() -> Result<Self, HostError> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map_err(HostError::Unshare)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(HostError::Private)?;
        let root = tempfile::Builder::new().prefix("berth-test-").tempdir();
        let host = Self {
            root: root.map_err(HostError::RunRoot)?,
        };
        host.run("ip", &["link", "set", "lo", "up"])?;
        Ok(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Need, Places, Snapshot, test};

    #[test]
    fn root_what_a_host_makes_goes_with_it() {
        test(&[Need::Root, Need::Program("ip")], || {
            let before = std::fs::read_dir("/sys/class/net")?.count();
            Host::isolated(|host| {
                host.run("ip", &["link", "add", "leaky0", "type", "bridge"])?;
                let inside = host.run("ip", &["-br", "link"])?;
                assert!(inside.contains("leaky0"));
                Ok(())
            })?;
            assert_eq!(std::fs::read_dir("/sys/class/net")?.count(), before);
            Ok(())
        });
    }

    #[test]
    fn root_a_leaked_link_is_found() {
        test(&[Need::Root, Need::Program("ip")], || {
            Host::isolated(|host| {
                // the machine's /sys shows the namespace it was mounted in
                let sys = host.folder("sys")?;
                mount(
                    Some("sysfs"),
                    &sys,
                    Some("sysfs"),
                    MsFlags::empty(),
                    None::<&str>,
                )?;
                mount(
                    Some(&sys),
                    "/sys",
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )?;
                let before = Snapshot::take(&Places::default())?;
                host.run("ip", &["link", "add", "leaky1", "type", "bridge"])?;
                let leaks = before.difference(&Snapshot::take(&Places::default())?);
                assert!(
                    leaks
                        .iter()
                        .any(|leak| leak.kind == "link" && leak.what == "leaky1")
                );
                Ok(())
            })
        });
    }
}
