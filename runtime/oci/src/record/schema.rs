//! The sandbox record as data: what `docs/sandbox-record.md` describes field by field.

use std::collections::BTreeMap;

use berth_sys::creds::CapabilityMasks;
use serde::{Deserialize, Serialize};

use crate::capability;
use crate::spec::config::LinuxDeviceCgroup;

/// Version of the schema. A reader refuses a greater one.
pub const VERSION: u32 = 1;

/// What was asked for one process next to what the kernel reported of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`VERSION`].
    pub version: u32,
    /// What was verified.
    pub kind: Kind,
    /// The container's id.
    pub container: String,
    /// The process in the reader's PID namespace; none for an update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// When the kernel was asked, nanoseconds since 1970, UTC.
    pub time: u64,
    /// At which moment of the process's life.
    pub read_at: ReadAt,
    /// The result.
    pub verdict: Verdict,
    /// What is weaker than asked, or could not be read, each with its reason; allowed by configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Finding>,
    /// What differs from what was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mismatches: Vec<Finding>,
    /// Field by field; none for a foreign launcher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Box<Fields>>,
}

/// What was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The first process of a container.
    Start,
    /// A further process.
    Exec,
    /// New limits of a running container.
    Update,
}

/// At which moment the kernel was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadAt {
    /// At the end of execve, before the program's first instruction.
    ExecStop,
    /// At the last wait before execve, where the process cannot be traced.
    Barrier,
    /// While it runs.
    Running,
    /// Never: another runtime started it.
    Never,
}

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// All that was asked is what the kernel reports.
    Match,
    /// It is, but for what [`Record::degraded`] names.
    Degraded,
    /// It is not: the process was killed before its first instruction.
    Mismatch,
    /// Nobody looked.
    Unverified,
}

/// A field with what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of a member of [`Fields`], with what is meant inside of it.
    pub field: String,
    /// In one sentence without full stop.
    pub reason: String,
}

/// One field of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field<T> {
    /// What was asked; absent where nothing was.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub requested: Option<T>,
    /// What the kernel reports; absent where it was not asked.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub applied: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

impl<T> Field<T> {
    fn is_empty(&self) -> bool {
        self.requested.is_none() && self.applied.is_none()
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// What was asked for a process.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Requested {
            $($(#[$doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)*
            /// What only the comparison needs.
            pub context: Context,
        }

        /// What the kernel reported of a process.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Applied {
            $($(#[$doc])* pub $name: Option<$type>,)*
        }

        /// All fields of a record.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Fields {
            $($(#[$doc])* #[serde(default = "empty", skip_serializing_if = "Field::is_empty")] pub $name: Field<$type>,)*
        }

        impl Fields {
            /// The names of all fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Puts what was applied next to what was asked.
            pub fn pair(requested: Requested, applied: Applied) -> Fields {
                Fields { $($name: Field { requested: requested.$name, applied: applied.$name },)* }
            }
        }
    };
}

fn empty<T>() -> Field<T> {
    Field {
        requested: None,
        applied: None,
    }
}

fields! {
    /// The five capability sets.
    capabilities: Capabilities,
    /// Whether execve may gain no privilege.
    no_new_privs: bool,
    /// Mode and filters of seccomp.
    seccomp: Seccomp,
    /// Label of the security module.
    lsm_label: String,
    /// User ids, as the reader's user namespace counts them.
    uids: Ids,
    /// Group ids, likewise.
    gids: Ids,
    /// Supplementary groups, sorted.
    groups: Vec<u32>,
    /// Maps of the user namespace.
    id_maps: IdMapLines,
    /// The namespaces.
    namespaces: Vec<Namespace>,
    /// The mount table; first the root.
    mounts: Vec<Mount>,
    /// Masked paths, each with what it is.
    masked_paths: BTreeMap<String, String>,
    /// Read-only paths, each with what it is.
    readonly_paths: BTreeMap<String, String>,
    /// SHA-256 of each eBPF program that filters devices.
    device_rules: Vec<String>,
    /// Path of the cgroup below the cgroup2 mount.
    cgroup: String,
    /// Files of the cgroup by name.
    limits: BTreeMap<String, String>,
    /// `soft:hard` by name.
    rlimits: BTreeMap<String, String>,
    /// Preference of the OOM killer.
    oom_score_adj: i32,
    /// Kernel parameters by their path below `/proc/sys`.
    sysctls: BTreeMap<String, String>,
    /// File mode creation mask, octal.
    umask: String,
    /// Open descriptors and where they lead.
    descriptors: BTreeMap<u32, String>,
    /// Working directory.
    cwd: String,
    /// The environment, without its values.
    environment: Environment,
    /// The program.
    executable: String,
}

/// The five capability sets, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// What execve may ever grant.
    #[serde(with = "names")]
    pub bounding: u64,
    /// What counts.
    #[serde(with = "names")]
    pub effective: u64,
    /// What the process may make effective.
    #[serde(with = "names")]
    pub permitted: u64,
    /// What files may pass on.
    #[serde(with = "names")]
    pub inheritable: u64,
    /// What survives execve of an ordinary file.
    #[serde(with = "names")]
    pub ambient: u64,
}

impl From<CapabilityMasks> for Capabilities {
    fn from(masks: CapabilityMasks) -> Self {
        Capabilities {
            bounding: masks.bounding,
            effective: masks.effective,
            permitted: masks.permitted,
            inheritable: masks.inheritable,
            ambient: masks.ambient,
        }
    }
}

/// A capability set as a list of names.
mod names {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::capability;

    pub(super) fn serialize<S: Serializer>(mask: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(capability::names(*mask))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names.iter().try_fold(0, |mask, name| {
            let known = name.strip_prefix("CAP_");
            let bit = known.and_then(|name| capability::NAMES.iter().position(|n| *n == name));
            let bit = bit.ok_or_else(|| D::Error::custom(format!("no capability `{name}`")))?;
            Ok(mask | 1 << bit)
        })
    }
}

/// What seccomp does to a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// `disabled`, `strict` or `filter`.
    pub mode: String,
    /// SHA-256 of each filter's instructions, in the order in which they were loaded.
    pub filters: Vec<String>,
}

/// Real, effective, saved and file-system id (credentials(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
    /// For access to files.
    pub file_system: u32,
}

impl Ids {
    /// All four the same.
    pub fn all(id: u32) -> Ids {
        Ids {
            real: id,
            effective: id,
            saved: id,
            file_system: id,
        }
    }
}

/// Id maps, each line `inside outside count` (user_namespaces(7)).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapLines {
    /// Of users.
    pub uid: Vec<[u32; 3]>,
    /// Of groups.
    pub gid: Vec<[u32; 3]>,
}

/// One namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its file below `/proc/<pid>/ns`.
    pub kind: String,
    /// Its inode; for one asked by path that of the path, for a new one none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inode: Option<u64>,
    /// `new`, `host` (the reader's own) or `pod` (one joined).
    pub of: String,
}

/// One mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, inside.
    pub target: String,
    /// What: for a bind the path on the host as asked, and `device:path` as reported.
    pub source: String,
    /// File system type; `bind` where one was asked.
    #[serde(rename = "type")]
    pub kind: String,
    /// Option words.
    pub flags: Vec<String>,
    /// `private`, `shared`, `slave`, `shared,slave` or `unbindable`.
    pub propagation: String,
    /// Device and inode of a bind's source when it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<(u64, u64)>,
}

/// An environment without its values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Number of entries.
    pub count: usize,
    /// Names, in order.
    pub names: Vec<String>,
    /// `sha256:` and the digest of all entries, each ended by a NUL byte. For memory only: the daemon
    /// makes an HMAC with the node's key of it, and [`Record::publish`] removes it.
    #[serde(
        rename = "environment",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub digest: Option<String>,
}

/// What the comparison needs to know of the request besides its fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Start or exec.
    pub exec: bool,
    /// The container's id.
    pub container: String,
    /// Absolute path of the cgroup to read limits from.
    pub cgroup: Option<String>,
    /// Limits which the host's cgroup cannot enforce are tolerated.
    pub degraded_ok: bool,
    /// Targets of mounts that may be there, though none was asked by name: devices, the console.
    pub tolerated: Vec<String>,
    /// Targets below which the source brings mounts of its own.
    pub trees: Vec<String>,
    /// Option words which all mounts at and below a target must have.
    pub recursive_flags: Vec<(String, Vec<String>)>,
    /// Targets of binds whose source may be a symbolic link that is made again.
    pub links: Vec<String>,
    /// `PATH` of the process.
    pub path: String,
    /// The device rules, should the kernel have rewritten their program.
    pub devices: Vec<LinuxDeviceCgroup>,
    /// Descriptors from 3 on that are passed.
    pub preserved: u32,
    /// A process in whose namespaces the new one must be (exec).
    pub target_pid: Option<i32>,
    /// Random bytes in hexadecimal that go before the environment into the digest of a kept request,
    /// so that it says nothing about values to who reads it.
    pub salt: String,
}

impl Record {
    /// As it may be written down: without the digest of the environment, from which short values
    /// could be guessed.
    pub fn publish(mut self) -> Record {
        if let Some(fields) = &mut self.fields {
            let environment = &mut fields.environment;
            let both = [&mut environment.requested, &mut environment.applied];
            for environment in both.into_iter().flatten() {
                environment.digest = None;
            }
        }
        self
    }
}
