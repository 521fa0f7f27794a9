//! The spec's mounts, in order, each prepared detached and moved onto its opened target.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_sys::mount::{self, AttributeChange, FsContext, Propagation, attr};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::sources::HostSource;
use super::{Assembly, copyup};
use crate::launch::{At, LaunchError, Stage};
use crate::plan::{MountPlan, MountSource};
use crate::spec::mount_options;

impl Assembly<'_> {
    /// Makes every mount of the plan.
    pub(crate) fn mount_all(&mut self) -> Result<(), LaunchError> {
        let mut sources = std::mem::take(&mut self.sources).into_iter();
        for plan in &self.plan.mounts {
            let mut opened = || {
                sources
                    .next()
                    .expect("open_all opened one for each of these")
            };
            match &plan.source {
                MountSource::Bind { path, .. } => match opened() {
                    HostSource::Tree(source) => self.bind(plan, path, &source)?,
                    HostSource::Link(to) => self.link(plan, &to)?,
                },
                MountSource::Cgroup { own: false } => match opened() {
                    HostSource::Tree(source) => self.bind(plan, Path::new("cgroup2"), &source)?,
                    HostSource::Link(to) => self.link(plan, &to)?,
                },
                MountSource::Cgroup { own: true } => {
                    let parameters = Parameters {
                        kind: "cgroup2",
                        source: "cgroup",
                        values: &[],
                        flags: &[],
                    };
                    self.file_system(plan, &parameters)?;
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
                MountSource::Remount { values, flags } => self.remount(plan, values, flags)?,
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
            self.target_made_by(&plan.target, || self.root.ensure_file(&plan.target, 0o644))
        };
        let target = target.at(Stage::Rootfs, step)?;
        set_bind_attributes(plan, source).at(Stage::Rootfs, step)?;
        self.place(plan, source, &target).at(Stage::Rootfs, step)
    }

    /// Makes the source's link at the target; the same link there already is fine.
    fn link(&self, plan: &MountPlan, to: &Path) -> Result<(), LaunchError> {
        let step = || format!("link `{}` to `{}`", plan.target.display(), to.display());
        match self.root.symlink(to, &plan.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = self.root.resolve_nofollow(&plan.target);
                let there = there.at(Stage::Rootfs, step)?;
                let name = rustix::fs::readlinkat(&there, "", Vec::new());
                let same =
                    name.is_ok_and(|name| name.as_bytes() == to.as_os_str().as_encoded_bytes());
                let taken = || LaunchError::from_io(Stage::Rootfs, step(), &error);
                same.then_some(()).ok_or_else(taken)
            }
            done => done.at(Stage::Rootfs, step),
        }
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
        let copy_up = plan.extensions.copy_up;
        let late = if copy_up { attr::RDONLY } else { 0 };
        let mount = parameters
            .make(plan.attributes.set & !late, &target)
            .at(Stage::Rootfs, step)?;
        if copy_up {
            let copied = copyup::copy(&target, &mount, parameters.values);
            copied.at(Stage::Rootfs, || {
                format!("copy `{}` up", plan.target.display())
            })?;
            change(&mount, plan.attributes, false).at(Stage::Rootfs, step)?;
        }
        self.place(plan, &mount, &target).at(Stage::Rootfs, step)
    }

    /// Changes a mount that is there: its attributes, and the parameters of its file system.
    fn remount(
        &self,
        plan: &MountPlan,
        values: &[(String, String)],
        flags: &[String],
    ) -> Result<(), LaunchError> {
        let step = || format!("remount `{}`", plan.target.display());
        let target = self.open_target(&plan.target).at(Stage::Rootfs, step)?;
        change(&target, plan.attributes, false).at(Stage::Rootfs, step)?;
        change(&target, plan.recursive_attributes, true).at(Stage::Rootfs, step)?;
        for (propagation, recursive) in &plan.propagation {
            spread(&target, *propagation, *recursive).at(Stage::Rootfs, step)?;
        }
        if values.is_empty() && flags.is_empty() {
            return Ok(());
        }
        let reconfigure = || {
            let context = FsContext::pick(&target)?;
            configure(&context, values, flags)?;
            context.reconfigure()
        };
        reconfigure().at(Stage::Rootfs, step)
    }

    fn target_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        #[cfg(feature = "test-util")]
        if let Some(followed) = crate::fault::followed(&self.root, path) {
            return followed;
        }
        self.target_made_by(path, || self.root.mkdir_all(path, 0o755))
    }

    /// Opens the target; most are in the image already, so that it is made only where it is missing.
    fn target_made_by(
        &self,
        path: &Path,
        make: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<OwnedFd> {
        match self.open_target(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make()?;
                self.open_target(path)
            }
            opened => opened,
        }
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

/// The options replace the attributes of the source, as with mount(2)'s second call for a bind
/// mount. What the kernel has locked (mounts of another user namespace keep their restrictions,
/// mount_namespaces(7)) stays; only an option that asks for the opposite fails.
fn set_bind_attributes(plan: &MountPlan, source: &OwnedFd) -> io::Result<()> {
    if plan.attributes.is_empty() {
        return Ok(());
    }
    let times = (plan.attributes.set | plan.attributes.clear) & (attr::ATIME | attr::NODIRATIME);
    // Without a word on access times those of the source stay, as mount(2) has it.
    let replaced = if times == 0 {
        attr::ALL & !(attr::ATIME | attr::NODIRATIME)
    } else {
        attr::ALL
    };
    let whole = AttributeChange {
        clear: replaced & !(plan.attributes.set & !attr::ATIME),
        ..plan.attributes
    };
    match change(source, whole, false) {
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            change(source, plan.attributes, false)
        }
        done => done,
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
        configure(&context, self.values, self.flags)?;
        if self.kind == "tmpfs" && !self.values.iter().any(|(key, _)| key == "mode") {
            // Without a mode of its own a tmpfs keeps that of the directory which it covers.
            let mode = rustix::fs::fstat(target)?.st_mode & 0o7777;
            context.set("mode", format!("{mode:o}"))?;
        }
        if attributes & attr::RDONLY != 0 && self.source.starts_with('/') {
            context.set_flag("ro")?; // of a device, which may not even be writable
        }
        context.mount(attributes)
    }
}

fn configure(context: &FsContext, values: &[(String, String)], flags: &[String]) -> io::Result<()> {
    for (key, value) in values {
        set(context, key, value)?;
    }
    for flag in flags {
        match context.set_flag(flag) {
            Err(error)
                if mount_options::is_optional(flag)
                    && error.raw_os_error() == Some(libc::EINVAL) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Overlay's layers go one by one: fsconfig(2) takes strings of up to 255 bytes, and a list of
/// layers is soon longer (`lowerdir+`, Linux 6.5).
fn set(context: &FsContext, key: &str, value: &str) -> io::Result<()> {
    if key != "lowerdir" || value.len() <= 255 || value.contains(['\\', '"']) {
        return context.set(key, value);
    }
    value
        .split(':')
        .try_for_each(|layer| context.set("lowerdir+", layer))
}
