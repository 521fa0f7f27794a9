//! A host of its own for daemons under measurement: private mounts and network.

use std::process::Command;

use anyhow::{Context, Result};
use berth_sys::ns::{self, NamespaceKind};
use rustix::mount::{MountPropagationFlags, mount_change};

use crate::process;

/// Gives this process, and all it starts from now on, a mount table of its own.
///
/// Call it from the main thread before there is another one.
pub fn private_mounts() -> Result<()> {
    ns::unshare(NamespaceKind::Mount.flag()).context("cannot make a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot make the mounts private")
}

/// Gives this process, and all it starts from now on, a network with loopback alone: links,
/// rules and sockets of a bench meet nobody's and go with it.
///
/// Call it from the main thread before there is another one.
pub fn private_network() -> Result<()> {
    ns::unshare(NamespaceKind::Net.flag()).context("cannot make a network namespace")?;
    process::run(Command::new("ip").args(["link", "set", "lo", "up"]))
}
