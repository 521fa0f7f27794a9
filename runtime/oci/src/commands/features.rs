//! `features`: what this runtime supports (features.md).
//!
//! What a spec may ask for is not listed here by hand: every word that the specification and
//! seccomp(2) know is put into a small spec, and counts as supported if that spec is accepted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_oci::capability;
use berth_oci::plan::{CgroupMode, Plan, RootfsSource, Source};
use berth_oci::spec::{self, MOUNT_OPTIONS};
use serde_json::{Value, json};

use super::Failure;
use crate::cli::{COMMIT, SPEC_VERSION};

const HOOKS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];
const NAMESPACES: [&str; 8] = [
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];
const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
/// Those whose calls the compiler can number; others in a profile are passed over.
const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];
const FILTER_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
const MEMORY_MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
];
const MEMORY_FLAGS: [&str; 3] = [
    "MPOL_F_NUMA_BALANCING",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_STATIC_NODES",
];

pub(super) fn run() -> Result<ExitCode, Failure> {
    println!("{:#}", features());
    Ok(ExitCode::SUCCESS)
}

fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": supported(&NAMESPACES, namespace),
            "capabilities": capability::names(u64::MAX >> (64 - capability::NAMES.len())),
            "cgroup": { "v1": false, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": supported(&ACTIONS, |action| json!({"linux": {"seccomp": action_profile(action)}})),
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": FILTER_FLAGS,
                "supportedFlags": supported(&FILTER_FLAGS, |flag| json!({"linux": {"seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW", "flags": [flag]}}})),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": accepts(&json!({"process": {"selinuxLabel": "a:b:c:s0"}})) },
            "intelRdt": { "enabled": accepts(&json!({"linux": {"intelRdt": {"closID": "a"}}})) },
            "memoryPolicy": {
                "modes": supported(&MEMORY_MODES, |mode| memory_policy(mode, &[])),
                "flags": supported(&MEMORY_FLAGS, |flag| memory_policy("MPOL_BIND", &[flag])),
            },
            "mountExtensions": { "idmap": { "enabled": idmap() } },
            "netDevices": { "enabled": accepts(&json!({"linux": {"netDevices": {"eth7": {"name": "eth0"}}}})) },
        },
        "annotations": {
            "io.berth.oci.version": env!("CARGO_PKG_VERSION"),
            "io.berth.oci.commit": COMMIT,
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
    })
}

fn supported<'a>(words: &[&'a str], spec: impl Fn(&str) -> Value) -> Vec<&'a str> {
    let accepted = |word: &&&str| accepts(&spec(word));
    words.iter().filter(accepted).copied().collect()
}

fn namespace(kind: &str) -> Value {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let mapped = kind == "user";
    let maps = if mapped { map } else { Value::Null };
    let all = match kind {
        "mount" => json!([{"type": "mount"}]),
        kind => json!([{"type": "mount"}, {"type": kind}]),
    };
    json!({"linux": {"namespaces": all, "uidMappings": maps, "gidMappings": maps}})
}

fn action_profile(action: &str) -> Value {
    let notify = action == "SCMP_ACT_NOTIFY";
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": if notify { json!("/run/listener") } else { Value::Null },
        "syscalls": [{"names": ["getcwd"], "action": action}],
    })
}

fn memory_policy(mode: &str, flags: &[&str]) -> Value {
    let nodes = match mode {
        "MPOL_DEFAULT" | "MPOL_LOCAL" => "",
        _ => "0",
    };
    json!({"linux": {"memoryPolicy": {"mode": mode, "nodes": nodes, "flags": flags}}})
}

fn idmap() -> bool {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    accepts(
        &json!({"mounts": [{"destination": "/x", "type": "bind", "source": "/x",
        "options": ["bind", "idmap"], "uidMappings": map, "gidMappings": map}]}),
    )
}

/// Whether a small spec with these fields in addition can be carried out.
fn accepts(addition: &Value) -> bool {
    let mut spec = json!({
        "ociVersion": SPEC_VERSION,
        "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["x"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]},
    });
    merge(&mut spec, addition);
    let source = Source {
        id: "features".to_owned(),
        bundle: PathBuf::from("/"),
        rootfs: RootfsSource::Path(PathBuf::from("/rootfs")),
        cgroup: CgroupMode::Disabled,
    };
    let spec = spec::parse(spec.to_string().as_bytes(), Path::new("config.json"));
    spec.is_ok_and(|spec| Plan::from_spec(&spec, &source).is_ok())
}

fn merge(into: &mut Value, addition: &Value) {
    match (into, addition) {
        (Value::Object(into), Value::Object(addition)) => {
            for (key, value) in addition {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, addition) => *into = addition.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_spec_may_ask_for_is_told() {
        let features = features();
        let list = |path: &str| features.pointer(path).unwrap().to_string();
        for kind in ["cgroup", "ipc", "mount", "network", "pid", "uts"] {
            assert!(list("/linux/namespaces").contains(kind), "{kind}");
        }
        for word in [
            "\"ro\"",
            "\"rro\"",
            "\"bind\"",
            "\"rshared\"",
            "\"nosymfollow\"",
        ] {
            assert!(list("/mountOptions").contains(word), "{word}");
        }
        assert!(!list("/mountOptions").contains("nouser"));
        assert!(list("/linux/seccomp/archs").contains("SCMP_ARCH_X86_64"));
        assert!(!list("/linux/seccomp/archs").contains("MIPS"));
        assert!(list("/linux/seccomp/actions").contains("SCMP_ACT_TRAP"));
    }
}
