//! `config.json` as the runtime specification 1.3.0 has it (config.md, config-linux.md), named as in
//! its Go types; later ones of a version 1 too, whose members nobody knows here.
//!
//! Own types, read from one tree (docs/adr/0017): every error has its JSON path, all are found at
//! once, and a type is a table. As in Go, an empty text or list is the same as a missing one, and so
//! is `null`; an `Option` is where an empty value means something.

mod linux;
mod node;
mod process;
mod read;
mod resources;
mod seccomp;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use linux::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxIntelRdt, LinuxMemoryPolicy,
    LinuxNamespace, LinuxNamespaceType, LinuxNetDevice, LinuxPersonality, LinuxPersonalityDomain,
    LinuxTimeOffset, MemoryPolicyFlag, MemoryPolicyMode,
};
pub(crate) use node::Node;
pub use process::{
    ConsoleSize, CpuAffinity, IoPriorityClass, LinuxCapabilities, LinuxIoPriority, PosixRlimit,
    PosixRlimitType, Process, Scheduler, SchedulerFlag, SchedulerPolicy, User,
};
pub(crate) use read::{Field, Reader, whole};
pub use resources::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxInterfacePriority,
    LinuxMemory, LinuxNetwork, LinuxPids, LinuxRdma, LinuxResources, LinuxThrottleDevice,
    LinuxWeightDevice,
};
pub use seccomp::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

pub(crate) use text::tree;

use table::object;

object! {
    /// A whole `config.json`.
    Spec {
        /// Version of the specification it is written for.
        version: String = required "ociVersion",
        /// The first process.
        process: Option<Process> = optional "process",
        /// The root file system.
        root: Option<Root> = optional "root",
        /// Host name of the UTS namespace.
        hostname: String = optional "hostname",
        /// NIS domain name of the UTS namespace.
        domainname: String = optional "domainname",
        /// Mounts, in the order in which they are made.
        mounts: Vec<Mount> = optional "mounts",
        /// Programs of the host and of the container to run at points of the life cycle.
        hooks: Option<Hooks> = optional "hooks",
        /// Whatever the engine wants to be kept.
        annotations: BTreeMap<String, String> = optional "annotations",
        /// What Linux alone has.
        linux: Option<Linux> = optional "linux",
        /// What FreeBSD alone has.
        freebsd: Option<Foreign> = optional "freebsd",
        /// What Solaris alone has.
        solaris: Option<Foreign> = optional "solaris",
        /// What Windows alone has.
        windows: Option<Foreign> = optional "windows",
        /// What virtual machines alone have.
        vm: Option<Foreign> = optional "vm",
        /// What z/OS alone has.
        zos: Option<Foreign> = optional "zos",
    }

    /// The root file system.
    Root {
        /// Its directory, absolute or below the bundle.
        path: PathBuf = required "path",
        /// Whether nothing can be written to it.
        readonly: bool = optional "readonly",
    }

    /// One mount.
    Mount {
        /// Where, inside the root file system.
        destination: PathBuf = required "destination",
        /// File system type; `bind` or none for a bind mount.
        kind: String = optional "type",
        /// A device, a name, or what to bind: absolute or below the bundle.
        source: PathBuf = optional "source",
        /// Words of mount(8).
        options: Vec<String> = optional "options",
        /// Translation of user ids.
        uid_mappings: Vec<LinuxIdMapping> = optional "uidMappings",
        /// Translation of group ids.
        gid_mappings: Vec<LinuxIdMapping> = optional "gidMappings",
    }

    /// Programs to run at points of the life cycle (config.md, "POSIX-platform Hooks").
    Hooks {
        /// The old name of `createRuntime`.
        prestart: Vec<Hook> = optional "prestart",
        /// On the host, once the namespaces exist.
        create_runtime: Vec<Hook> = optional "createRuntime",
        /// In the container's namespaces, before the root changes.
        create_container: Vec<Hook> = optional "createContainer",
        /// In the container, before its program.
        start_container: Vec<Hook> = optional "startContainer",
        /// On the host, once the program runs.
        poststart: Vec<Hook> = optional "poststart",
        /// On the host, at the end.
        poststop: Vec<Hook> = optional "poststop",
    }

    /// One hook.
    Hook {
        /// The program, absolute.
        path: PathBuf = required "path",
        /// Its name and arguments.
        args: Vec<String> = optional "args",
        /// Its whole environment.
        env: Vec<String> = optional "env",
        /// Seconds until it is killed.
        timeout: Option<i64> = optional "timeout",
    }
}

/// A section for another platform: that it is there is all that is kept of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Foreign;

impl Field for Foreign {
    fn read<'n>(_: &'n Node<'n>, _: &mut Reader<'n>) -> Self {
        Foreign
    }

    fn node(&self) -> Node<'_> {
        Node::Object(Vec::new())
    }
}

impl LinuxResources {
    /// The members of the object that say something, by name.
    pub fn members(&self) -> impl Iterator<Item = String> {
        let members = match self.node() {
            Node::Object(members) => members,
            _ => Vec::new(),
        };
        let names: Vec<String> = members.into_iter().map(|(key, _)| key.into()).collect();
        names.into_iter()
    }

    /// These limits with what `change` names in place of what they have.
    #[must_use]
    pub fn changed(&self, change: &LinuxResources) -> LinuxResources {
        let merged = self.node().merged(change.node());
        // Both were written by their own types: nothing in them can be wrong.
        LinuxResources::read(&merged, &mut Reader::default())
    }
}
