//! The user namespaces that id-mapped mounts take their maps from.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::idmap;

use crate::launch::{At, LaunchError, Stage};
use crate::plan::{IdMapPlan, IdMaps, MountPlan};

/// One namespace for each different pair of maps, and the container's own. Made by the parent:
/// a process that the child made for it would show in the container.
#[derive(Debug, Default)]
pub(crate) struct MapNamespaces {
    made: HashMap<IdMaps, OwnedFd>,
    container: Option<OwnedFd>,
}

impl MapNamespaces {
    /// Makes what `mounts` need; `container` is the container's user namespace, if it has one.
    pub(crate) fn make(
        mounts: &[MountPlan],
        container: Option<BorrowedFd<'_>>,
    ) -> Result<MapNamespaces, LaunchError> {
        let mut out = MapNamespaces::default();
        for plan in mounts {
            let Some(id_map) = &plan.extensions.id_map else {
                continue;
            };
            let step = || format!("map the ids of `{}`", plan.target.display());
            match &id_map.maps {
                Some(maps) if out.made.contains_key(maps) => {}
                Some(maps) => {
                    let namespace = idmap::user_namespace(&maps.uids, &maps.gids);
                    let namespace = namespace.at(Stage::Clone, step)?;
                    out.made.insert(maps.clone(), namespace);
                }
                None if out.container.is_some() => {}
                None => {
                    let container = container.map(|fd| fd.try_clone_to_owned());
                    out.container = container.transpose().at(Stage::Clone, step)?;
                }
            }
        }
        Ok(out)
    }

    /// All descriptors, for the child to keep.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.made.values().chain(&self.container).map(AsFd::as_fd)
    }

    /// The namespace of one plan.
    pub(super) fn of(&self, plan: &IdMapPlan) -> Option<BorrowedFd<'_>> {
        let found = match &plan.maps {
            Some(maps) => self.made.get(maps),
            None => self.container.as_ref(),
        };
        found.map(AsFd::as_fd)
    }
}
