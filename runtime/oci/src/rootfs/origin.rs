//! Where a root file system comes from, as detached mounts: opened with rights over the host,
//! attached in the container's namespaces.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::mount;

use super::sources::{self, HostSource};
use super::{MapNamespaces, cut, open_top, overlay};
use crate::launch::{At, LaunchError, Stage};
use crate::plan::{IdMaps, RootfsPlan, RootfsSource};
use berth_sys::mount::Propagation;

/// How a child comes by its sources.
#[derive(Debug)]
pub(crate) enum Origin {
    /// It opens them itself; ids of id-mapped mounts are translated by these.
    Here(MapNamespaces),
    /// They were opened outside of its user namespace.
    Opened(Sources),
}

/// The opened sources of one root file system.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The bare root.
    pub(super) root: OwnedFd,
    /// What mounts take from the host, in the order of the plan's mounts that do. Opened while the
    /// host's propagation is untouched, so that peer groups survive.
    pub(super) mounts: Vec<HostSource>,
}

/// The container's user namespace, with its maps as far as they are known.
pub(crate) type Users<'a> = (BorrowedFd<'a>, &'a IdMaps);

impl Origin {
    /// All descriptors, for the child to keep.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Origin::Here(maps) => maps.descriptors().collect(),
            Origin::Opened(Sources { root, mounts }) => [root.as_fd()]
                .into_iter()
                .chain(mounts.iter().filter_map(HostSource::descriptor))
                .collect(),
        }
    }

    /// The sources, opened at the latest now.
    pub(crate) fn sources(self, plan: &RootfsPlan) -> Result<Sources, LaunchError> {
        match self {
            Origin::Here(maps) => Sources::open(plan, &maps, None),
            Origin::Opened(sources) => Ok(sources),
        }
    }
}

impl Sources {
    /// Opens every source and cuts the copied mount table off from the host. With `users`, layers
    /// are id-mapped: what the image says of ids holds inside.
    pub(crate) fn open(
        plan: &RootfsPlan,
        maps: &MapNamespaces,
        users: Option<Users<'_>>,
    ) -> Result<Sources, LaunchError> {
        let mounts = sources::open_all(&plan.mounts, maps)?;
        let folder = match &plan.source {
            RootfsSource::Path(path) => {
                let step = || format!("open the root `{}`", path.display());
                Some(mount::clone_path(path, true, true).at(Stage::Rootfs, step)?)
            }
            RootfsSource::Overlay { .. } => None,
        };
        mount::set_attributes(open_top()?, cut(Propagation::Private), true)
            .at(Stage::Rootfs, || "leave the host's mounts".into())?;
        let root = match folder {
            Some(folder) => folder,
            // Overlay's own mount is made after the cut: it must not show up in the host's table.
            None => overlay::mount(&plan.source, users)?,
        };
        Ok(Sources { root, mounts })
    }
}
