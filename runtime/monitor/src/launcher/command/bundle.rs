//! The bundle that another runtime gets: the pod's configuration with the root file system in place.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use berth_sys::mount::{self, FsContext, attr};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use serde_json::Value;

use crate::protocol::{LaunchContainer, Rootfs};

/// Largest configuration, in bytes.
const CONFIG_MAX: u64 = 4 * 1024 * 1024;

/// Why a bundle could not be made or undone.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file or directory failed.
    #[error("cannot {step} `{path}`")]
    File {
        /// What was tried.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The configuration is not JSON or lacks `process` or `root`.
    #[error("`{path}`: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The request and the configuration disagree.
    #[error("tty is {0} in the request and {1} in the configuration")]
    Terminal(bool, bool),
}

/// A bundle in the pod's directory.
pub(super) struct Bundle {
    pub(super) path: PathBuf,
    /// Mount point of the root file system in the host's table.
    pub(super) mounted: Option<PathBuf>,
}

impl Bundle {
    pub(super) fn make(
        directory: &Path,
        container: &LaunchContainer,
        oom_score_adj: i32,
    ) -> Result<Self, BundleError> {
        let mut config = read_config(&container.bundle.join("config.json"))?;
        let spec = config
            .pointer("/process/terminal")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        if spec != container.tty {
            return Err(BundleError::Terminal(container.tty, spec));
        }
        let path = directory.join("bundles").join(&container.id);
        make_directory(&path)?;
        let made = mount_rootfs(directory, container).and_then(|(rootfs, mounted)| {
            complete(&mut config, &rootfs, oom_score_adj);
            let file = path.join("config.json");
            let written = std::fs::write(&file, config.to_string());
            written.map_err(failed("write", &file)).map(|()| mounted)
        });
        match made {
            Ok(mounted) => Ok(Self { path, mounted }),
            Err(error) => {
                let _ = Self::undo(directory, &container.id);
                Err(error)
            }
        }
    }

    /// Unmounts and removes what [`Bundle::make`] made, as far as it is there.
    pub(super) fn undo(directory: &Path, id: &str) -> Result<(), BundleError> {
        let rootfs = directory.join("rootfs").join(id);
        let unmounted =
            match rustix::mount::unmount(&rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                // INVAL: not a mount point.
                Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(()),
                Err(errno) => Err(failed("unmount", &rootfs)(errno.into())),
            };
        // Never recursively: what is in there belongs to an image.
        let emptied = gone(std::fs::remove_dir(&rootfs)).map_err(failed("remove", &rootfs));
        let bundle = directory.join("bundles").join(id);
        let removed = gone(std::fs::remove_dir_all(&bundle)).map_err(failed("remove", &bundle));
        unmounted.and(emptied).and(removed)
    }
}

fn read_config(path: &Path) -> Result<Value, BundleError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CONFIG_MAX + 1).read_to_end(&mut bytes))
        .map_err(failed("read", path))?;
    let bad = |reason: String| BundleError::Config {
        path: path.to_path_buf(),
        reason,
    };
    if bytes.len() as u64 > CONFIG_MAX {
        return Err(bad(format!("is larger than {CONFIG_MAX} bytes")));
    }
    let config: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    for part in ["process", "root"] {
        if !config.get(part).is_some_and(Value::is_object) {
            return Err(bad(format!("`{part}` is missing")));
        }
    }
    Ok(config)
}

/// Puts the place of the root file system into the configuration, and the OOM score that would be inherited.
fn complete(config: &mut Value, rootfs: &Path, oom_score_adj: i32) {
    config["root"]["path"] = rootfs.to_string_lossy().into();
    if config["process"]["oomScoreAdj"].is_null() {
        config["process"]["oomScoreAdj"] = oom_score_adj.into();
    }
}

/// Where the root file system is, and the mount point if it was mounted for this.
fn mount_rootfs(
    directory: &Path,
    container: &LaunchContainer,
) -> Result<(PathBuf, Option<PathBuf>), BundleError> {
    let (lower, upper, work, readonly) = match &container.rootfs {
        Rootfs::Path(path) => return Ok((path.clone(), None)),
        Rootfs::Overlay {
            lower,
            upper,
            work,
            readonly,
        } => (lower, upper, work, *readonly),
    };
    let target = directory.join("rootfs").join(&container.id);
    make_directory(&target)?;
    let attributes = if readonly { attr::RDONLY } else { 0 };
    overlay(lower, upper, work, attributes)
        .and_then(|mounted| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let point = rustix::fs::open(&target, flags, Mode::empty())?;
            mount::attach(mounted, point)
        })
        .map_err(failed("mount the layers at", &target))?;
    Ok((target.clone(), Some(target)))
}

fn overlay(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    attributes: u64,
) -> io::Result<std::os::fd::OwnedFd> {
    let context = FsContext::open("overlay")?;
    context.set("source", "overlay")?;
    for layer in lower {
        // One layer a call (Linux 6.5): a joined string would end at 255 bytes.
        context.set("lowerdir+", layer)?;
    }
    context.set("upperdir", upper)?;
    context.set("workdir", work)?;
    context.mount(attributes)
}

fn make_directory(path: &Path) -> Result<(), BundleError> {
    std::fs::create_dir_all(path).map_err(failed("make", path))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError + use<> {
    let path = path.to_path_buf();
    move |source| BundleError::File { step, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_completed_not_rewritten() {
        let mut config = serde_json::json!({
            "process": { "args": ["a"] }, "root": { "path": "x", "readonly": true }, "unknown": { "kept": 1 }
        });
        complete(&mut config, Path::new("/r"), 5);
        assert_eq!(
            config["root"],
            serde_json::json!({ "path": "/r", "readonly": true })
        );
        assert_eq!(config["process"]["oomScoreAdj"], 5);
        assert_eq!(config["unknown"]["kept"], 1);
        config["process"]["oomScoreAdj"] = 900.into();
        complete(&mut config, Path::new("/r"), 5);
        assert_eq!(config["process"]["oomScoreAdj"], 900);
    }
}
