//! The spec's mounts, in order, each prepared detached and moved onto its opened target.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::{self, AttributeChange, FsContext, Propagation};
use rustix::fs::FileType;

use super::Assembly;
use crate::launch::{At, LaunchError, Stage};
use crate::plan::{MountPlan, MountSource};

/// Opens the sources of all bind mounts as detached copies.
pub(super) fn open_sources(mounts: &[MountPlan]) -> Result<Vec<OwnedFd>, LaunchError> {
    let mut out = Vec::new();
    for plan in mounts {
        if let MountSource::Bind { path, recursive } = &plan.source {
            let source = mount::clone_path(path, *recursive, true);
            out.push(source.at(Stage::Rootfs, || {
                format!("open the bind source `{}`", path.display())
            })?);
        }
    }
    Ok(out)
}

impl Assembly<'_> {
    /// Makes every mount of the plan.
    pub(crate) fn mount_all(&mut self) -> Result<(), LaunchError> {
        let mut binds = std::mem::take(&mut self.binds).into_iter();
        for plan in &self.plan.mounts {
            match &plan.source {
                MountSource::Bind { path, .. } => {
                    let source = binds
                        .next()
                        .expect("open_sources opened one for each bind mount");
                    self.bind(plan, path, &source)?;
                }
                MountSource::FileSystem {
                    kind,
                    source,
                    values,
                    flags,
                } => {
                    let parameters = Parameters {
                        kind,
                        source,
                        values,
                        flags,
                    };
                    self.file_system(plan, &parameters)?;
                }
                MountSource::Cgroup => {
                    let parameters = Parameters {
                        kind: "cgroup2",
                        source: "cgroup",
                        values: &[],
                        flags: &[],
                    };
                    self.file_system(plan, &parameters)?;
                }
            }
        }
        Ok(())
    }

    fn bind(&self, plan: &MountPlan, path: &Path, source: &OwnedFd) -> Result<(), LaunchError> {
        let step = || format!("bind `{}` on `{}`", path.display(), plan.target.display());
        let stat = rustix::fs::fstat(source).at(Stage::Rootfs, step)?;
        let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            self.target_directory(&plan.target)
        } else {
            self.root
                .ensure_file(&plan.target, 0o644)
                .and_then(|_| self.open_target(&plan.target))
        };
        let target = target.at(Stage::Rootfs, step)?;
        change(source, plan.attributes, false).at(Stage::Rootfs, step)?;
        self.place(plan, source, &target).at(Stage::Rootfs, step)
    }

    fn file_system(
        &self,
        plan: &MountPlan,
        parameters: &Parameters<'_>,
    ) -> Result<(), LaunchError> {
        let step = || format!("mount `{}` on `{}`", parameters.kind, plan.target.display());
        let target = self
            .target_directory(&plan.target)
            .at(Stage::Rootfs, step)?;
        let mount = parameters
            .make(plan.attributes.set, &target)
            .at(Stage::Rootfs, step)?;
        self.place(plan, &mount, &target).at(Stage::Rootfs, step)
    }

    fn target_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.root.mkdir_all(path, 0o755)?;
        self.open_target(path)
    }

    /// Sets what may concern the mounts below, then attaches: nothing is ever visible with more
    /// rights than asked.
    fn place(&self, plan: &MountPlan, mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
        change(mount, plan.recursive_attributes, true)?;
        if plan.propagation.is_empty() {
            spread(mount, Propagation::Private, true)?;
        }
        for (propagation, recursive) in &plan.propagation {
            spread(mount, *propagation, *recursive)?;
        }
        mount::attach(mount, target)
    }
}

fn change(mount: &OwnedFd, change: AttributeChange, recursive: bool) -> io::Result<()> {
    if change.is_empty() {
        Ok(())
    } else {
        mount::set_attributes(mount, change, recursive)
    }
}

fn spread(mount: &OwnedFd, propagation: Propagation, recursive: bool) -> io::Result<()> {
    let change = AttributeChange {
        propagation: Some(propagation),
        ..AttributeChange::default()
    };
    mount::set_attributes(mount, change, recursive)
}

/// What a new file system is made from.
struct Parameters<'a> {
    kind: &'a str,
    source: &'a str,
    values: &'a [(String, String)],
    flags: &'a [String],
}

impl Parameters<'_> {
    fn make(&self, attributes: u64, target: &OwnedFd) -> io::Result<OwnedFd> {
        let context = FsContext::open(self.kind)?;
        context.set("source", self.source)?;
        for (key, value) in self.values {
            context.set(key, value.as_str())?;
        }
        for flag in self.flags {
            context.set_flag(flag)?;
        }
        if self.kind == "tmpfs" && !self.values.iter().any(|(key, _)| key == "mode") {
            // Without a mode of its own a tmpfs keeps that of the directory which it covers.
            let mode = rustix::fs::fstat(target)?.st_mode & 0o7777;
            context.set("mode", format!("{mode:o}"))?;
        }
        context.mount(attributes)
    }
}
