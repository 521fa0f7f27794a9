//! A new time namespace (time_namespaces(7)).
//!
//! Its offsets can be written only before a process is in it, and unshare(2) moves nobody: it makes
//! the namespace for later children. So the child makes it, writes the offsets, and enters it itself.

use std::path::Path;

use berth_sys::ns::{self, NamespaceKind};

use super::error::At;
use super::{LaunchError, Stage};
use crate::plan::Namespaces;
use crate::procfs::ProcFs;

/// Makes and enters the time namespace, if there is to be a new one. Needs the ids with which the
/// process was born: its own files in `/proc` belong to these.
pub(super) fn enter(namespaces: &Namespaces, proc: &ProcFs) -> Result<(), LaunchError> {
    if !namespaces.create.contains(&NamespaceKind::Time) {
        return Ok(());
    }
    let step = || "make the time namespace".to_owned();
    ns::unshare(NamespaceKind::Time.flag()).at(Stage::Join, step)?;
    for offset in &namespaces.time_offsets {
        let line = offset.to_string();
        proc.write(Path::new("self/timens_offsets"), &line)
            .at(Stage::Join, || format!("set the clock offset `{line}`"))?;
    }
    let made = proc.own_namespace("time_for_children");
    let made = made.at(Stage::Join, step)?;
    ns::join(made, NamespaceKind::Time.flag()).at(Stage::Join, || "enter the time namespace".into())
}
