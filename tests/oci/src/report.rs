//! What the probe saw from inside.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything the probe can tell about its own process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Process id in its own namespace.
    pub pid: u32,
    /// Working directory.
    pub cwd: String,
    /// Arguments without the program.
    pub args: Vec<String>,
    /// Environment as `NAME=VALUE`, in order.
    pub env: Vec<String>,
    /// Lines of `/proc/self/status`.
    pub status: BTreeMap<String, String>,
    /// Open descriptors and where they lead, the one used for reading them left out.
    pub fds: BTreeMap<u32, String>,
    /// Namespace links of `/proc/self/ns`.
    pub namespaces: BTreeMap<String, String>,
    /// Lines of `/proc/self/mountinfo`.
    pub mounts: Vec<String>,
    /// Lines of `/proc/self/limits`: name, soft, hard.
    pub limits: BTreeMap<String, (String, String)>,
    /// `/proc/self/oom_score_adj`.
    pub oom_score_adj: String,
    /// Host name of the UTS namespace.
    pub hostname: String,
    /// The cgroup2 line of `/proc/self/cgroup`.
    pub cgroup: String,
}
