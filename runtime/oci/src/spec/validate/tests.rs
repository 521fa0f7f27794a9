//! Tables: what of a spec is refused, under which path, and what a plan holds.

use std::path::{Path, PathBuf};

use berth_sys::mount::{Propagation, attr};
use berth_sys::ns::NamespaceKind;
use serde_json::{Value, json};

use super::linux::sysctl_file;
use crate::lsm::Modules;
use crate::plan::{CgroupMode, ExecPlan, MountSource, Plan, RootfsSource, Source};
use crate::spec::SpecErrors;
use crate::spec::config::Spec;

fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "env": ["A=1"], "cwd": "/" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
    })
}

pub(super) fn plan(spec: &Value) -> Result<Plan, SpecErrors> {
    let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
    let source = Source {
        id: "c1".into(),
        bundle: "/bundle".into(),
        rootfs: RootfsSource::Path("/bundle/rootfs".into()),
        cgroup: CgroupMode::Managed { degraded_ok: true },
    };
    super::plan_for(&spec, &source, Modules::default())
}

/// The base with the value at a JSON pointer replaced or, for a missing key, added.
pub(super) fn with(pointer: &str, value: Value) -> Value {
    let mut spec = base();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(all) => all.push(value),
        parent => parent[key] = value,
    }
    spec
}

pub(super) fn paths(spec: &Value) -> Vec<String> {
    plan(spec)
        .unwrap_err()
        .0
        .into_iter()
        .map(|error| error.path)
        .collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn each_mistake_is_named_by_its_path() {
    let bind = |options: Value| json!({"destination": "/x", "source": "/y", "options": options});
    let rows: Vec<(&str, Value, &str)> = vec![
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
        ("/process/args", json!([]), "process.args"),
        ("/process/args", json!(["a\u{0}b"]), "process.args"),
        ("/process/cwd", json!("relative"), "process.cwd"),
        ("/process/env", json!(["novalue"]), "process.env[0]"),
        ("/process/env", json!(["=x"]), "process.env[0]"),
        (
            "/process/user",
            json!({"uid": 4_294_967_295_u32, "gid": 0}),
            "process.user.uid",
        ),
        (
            "/process/user",
            json!({"uid": 0, "gid": 0, "umask": 0o1000}),
            "process.user.umask",
        ),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        (
            "/process/capabilities",
            json!({"effective": ["CAP_KILL"]}),
            "process.capabilities.effective",
        ),
        (
            "/process/capabilities",
            json!({"ambient": ["CAP_KILL"], "permitted": ["CAP_KILL"]}),
            "process.capabilities.ambient",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]),
            "process.rlimits[0]",
        ),
        ("/process/selinuxLabel", json!("x"), "process.selinuxLabel"),
        ("/linux/mountLabel", json!("x"), "linux.mountLabel"),
        (
            "/process/apparmorProfile",
            json!("x"),
            "process.apparmorProfile",
        ),
        (
            "/process/user",
            json!({"uid": 0, "gid": 0, "username": "x"}),
            "process.user.username",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            "process.scheduler.policy",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "nice": 20}),
            "process.scheduler.nice",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            "process.scheduler.priority",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_FIFO"}),
            "process.scheduler.priority",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "period": 1}),
            "process.scheduler.period",
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
            "process.ioPriority.priority",
        ),
        (
            "/process/execCPUAffinity",
            json!({"initial": "9999"}),
            "process.execCPUAffinity.initial",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND"}),
            "linux.memoryPolicy.nodes",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_LOCAL", "nodes": "0"}),
            "linux.memoryPolicy.nodes",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}),
            "linux.memoryPolicy.flags",
        ),
        ("/hostname", json!("name"), "hostname"),
        (
            "/mounts/1",
            json!({"destination": "/", "type": "tmpfs"}),
            "mounts[1].destination",
        ),
        (
            "/mounts/1",
            json!({"destination": "rel", "type": "tmpfs"}),
            "mounts[1].destination",
        ),
        (
            "/mounts/1",
            json!({"destination": "/a/../b", "type": "tmpfs"}),
            "mounts[1].destination",
        ),
        (
            "/mounts/1",
            json!({"destination": "/proc/x", "type": "tmpfs"}),
            "mounts[1].destination",
        ),
        (
            "/mounts/1",
            json!({"destination": "/proc", "source": "/tmp", "options": ["bind"]}),
            "mounts[1].destination",
        ),
        ("/mounts/1", json!({"destination": "/x"}), "mounts[1].type"),
        (
            "/mounts/1",
            json!({"destination": "/x", "options": ["bind"]}),
            "mounts[1].source",
        ),
        (
            "/mounts/1",
            bind(json!(["bind", "size=1"])),
            "mounts[1].options",
        ),
        (
            "/mounts/1",
            bind(json!(["bind", "nonsense"])),
            "mounts[1].options",
        ),
        (
            "/mounts/1",
            bind(json!(["bind", "idmap"])),
            "mounts[1].options",
        ),
        (
            "/mounts/1",
            json!({"destination": "/x", "type": "tmpfs", "options": ["idmap"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "mounts[1]",
        ),
        (
            "/mounts/1",
            json!({"destination": "/x", "source": "/y", "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "mounts[1].gidMappings",
        ),
        (
            "/mounts/1",
            json!({"destination": "/x", "source": "/y", "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}],
                "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "mounts[1].uidMappings[0]",
        ),
        (
            "/mounts/1",
            bind(json!(["bind", "tmpcopyup"])),
            "mounts[1].options",
        ),
        (
            "/mounts/1",
            json!({"destination": "/x", "type": "tmpfs", "options": ["copy-symlink"]}),
            "mounts[1].options",
        ),
        (
            "/mounts/1",
            json!({"destination": "/x", "type": "cgroup", "options": ["nsdelegate"]}),
            "mounts[1].options",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}]),
            "linux.namespaces",
        ),
        (
            "/linux/namespaces/2",
            json!({"type": "pid"}),
            "linux.namespaces[2]",
        ),
        (
            "/linux/namespaces/2",
            json!({"type": "network", "path": "rel"}),
            "linux.namespaces[2].path",
        ),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "linux.rootfsPropagation",
        ),
        ("/linux/maskedPaths", json!(["rel"]), "linux.maskedPaths[0]"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]),
            "linux.devices[0].major",
        ),
        (
            "/linux/cgroupsPath",
            json!("a.slice:b:c"),
            "linux.cgroupsPath",
        ),
        ("/linux/cgroupsPath", json!("/a/../b"), "linux.cgroupsPath"),
        ("/linux/cgroupsPath", json!("/"), "linux.cgroupsPath"),
        (
            "/linux/sysctl",
            json!({"net.core.somaxconn": "1"}),
            "linux.sysctl.net.core.somaxconn",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp",
        ),
        (
            "/linux/personality",
            json!({"domain": "LINUX32", "flags": ["x"]}),
            "linux.personality.flags",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "rel"}]}),
            "hooks.poststop[0].path",
        ),
    ];
    for (pointer, value, path) in rows {
        let spec = with(pointer, value);
        assert_eq!(paths(&spec), [path], "{spec}");
    }
}

#[test]
fn a_plain_spec_becomes_a_plan() {
    let plan = plan(&base()).unwrap();
    assert_eq!(
        plan.namespaces.create,
        [NamespaceKind::Mount, NamespaceKind::Pid]
    );
    assert_eq!(plan.rootfs.devices.len(), 6);
    assert_eq!(plan.cgroup.path, PathBuf::from("berth/c1"));
    assert_eq!(plan.process.umask, 0o022);
    assert_eq!(plan.process.capabilities, Default::default());
}

#[test]
fn mount_options_become_attributes() {
    let mount = |options: Value| {
        let spec = with(
            "/mounts/1",
            json!({"destination": "/x", "source": "y", "options": options}),
        );
        plan(&spec).unwrap().rootfs.mounts.pop().unwrap()
    };
    let plain = mount(json!(["rbind", "ro", "nosuid", "rslave"]));
    assert_eq!(
        plain.source,
        MountSource::Bind {
            path: "/bundle/y".into(),
            recursive: true
        }
    );
    assert_eq!(
        (plain.attributes.set, plain.attributes.clear),
        (attr::RDONLY | attr::NOSUID, 0)
    );
    assert_eq!(plain.propagation, [(Propagation::Slave, true)]);
    // The last word counts.
    assert_eq!(mount(json!(["bind", "ro", "rw"])).attributes.set, 0);
    assert_eq!(mount(json!(["bind", "rw", "ro"])).attributes.clear, 0);
    let times = mount(json!(["bind", "noatime"])).attributes;
    assert_eq!((times.set, times.clear), (attr::NOATIME, attr::ATIME));
    let recursive = mount(json!(["rbind", "rro"]));
    assert_eq!(
        (recursive.attributes.set, recursive.recursive_attributes.set),
        (0, attr::RDONLY)
    );
}

#[test]
fn only_namespaced_kernel_parameters_pass() {
    for (key, file, kind) in [
        (
            "net.ipv4.ip_forward",
            "net/ipv4/ip_forward",
            NamespaceKind::Net,
        ),
        (
            "net/ipv4/conf/eno2.100/rp_filter",
            "net/ipv4/conf/eno2.100/rp_filter",
            NamespaceKind::Net,
        ),
        (
            "net.ipv4.conf.eno2/100.rp_filter",
            "net/ipv4/conf/eno2.100/rp_filter",
            NamespaceKind::Net,
        ),
        (
            "kernel.shm_rmid_forced",
            "kernel/shm_rmid_forced",
            NamespaceKind::Ipc,
        ),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", NamespaceKind::Ipc),
        ("kernel.domainname", "kernel/domainname", NamespaceKind::Uts),
    ] {
        assert_eq!(
            sysctl_file(key, "1"),
            Ok((PathBuf::from(file), kind)),
            "{key}"
        );
    }
    for key in [
        "kernel.core_pattern",
        "kernel.hostname",
        "vm.swappiness",
        "net",
        "net.",
        "net..x",
        "net/../kernel/core_pattern",
        "fs.mqueue.a.b",
        "user.max_user_namespaces",
        "",
        "net.ipv4.ip_forward=1+kernel.core_pattern",
    ] {
        assert!(sysctl_file(key, "1").is_err(), "{key}");
    }
    for value in ["1\n2", "1\0", "\u{1b}"] {
        assert!(
            sysctl_file("net.ipv4.ip_forward", value).is_err(),
            "{value:?}"
        );
    }
}

#[test]
fn of_two_values_for_a_name_the_last_counts() {
    let plan = plan(&with("/process/env", json!(["A=1", "B=2", "A=3"]))).unwrap();
    let env: Vec<&str> = plan
        .process
        .env
        .iter()
        .map(|entry| entry.to_str().unwrap())
        .collect();
    assert_eq!(env, ["B=2", "A=3"]);
}

#[test]
fn an_exec_never_has_more_than_the_container() {
    let mut spec = base();
    spec["process"]["noNewPrivileges"] = json!(true);
    spec["process"]["capabilities"] = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let process =
        json!({"user": {"uid": 1, "gid": 1}, "args": ["x"], "cwd": "/", "noNewPrivileges": false});
    let process = serde_json::from_value(process).unwrap();
    let plan = ExecPlan::new(&spec, &process, 1, None).unwrap();
    assert!(plan.process.no_new_privs);
    assert_eq!(
        (
            plan.process.capabilities.bounding,
            plan.process.capabilities.permitted
        ),
        (1 << 5, 1 << 5)
    );
}

#[test]
fn unknown_fields_and_large_files_are_refused() {
    let mut spec = base();
    spec["linux"]["newThing"] = json!(1);
    spec["proces"] = json!({});
    let error =
        crate::spec::parse(spec.to_string().as_bytes(), Path::new("config.json")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`config.json`: unknown fields: proces, linux.newThing"
    );
    assert!(
        crate::spec::load(Path::new("/dev/zero"))
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );
}

#[test]
fn what_a_security_module_is_asked_for_passes_where_it_runs() {
    let mut spec = base();
    spec["process"]["apparmorProfile"] = json!("berth");
    spec["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0:c1,c2");
    spec["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/x", "type": "tmpfs"}));
    let all = Modules {
        apparmor: true,
        selinux: true,
    };
    let source = Source {
        id: "c1".into(),
        bundle: "/bundle".into(),
        rootfs: RootfsSource::Path("/bundle/rootfs".into()),
        cgroup: CgroupMode::Disabled,
    };
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let plan = super::plan_for(&spec, &source, all).unwrap();
    let asked = (plan.process.apparmor, plan.process.selinux);
    let label = "system_u:system_r:container_t:s0:c1,c2".to_owned();
    assert_eq!(asked, (Some("berth".into()), Some(label)));
    let labels: Vec<bool> = plan
        .rootfs
        .mounts
        .iter()
        .map(|mount| match &mount.source {
            MountSource::FileSystem { values, .. } => {
                values.iter().any(|(key, _)| key == "context")
            }
            _ => false,
        })
        .collect();
    assert_eq!(labels, [false, true], "proc, tmpfs");
}
