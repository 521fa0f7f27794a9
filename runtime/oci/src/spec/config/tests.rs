//! What is read, what is told of it, and what is written again.

use std::path::Path;

use serde_json::{Value, json};

use super::{Node, Spec, tree};
use crate::spec::load::{Ignored, LoadError, load_of_engine, parse, parse_process};

fn base() -> Value {
    json!({"ociVersion": "1.2.0", "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/"}})
}

fn read(text: &str) -> Result<Spec, LoadError> {
    parse(text.as_bytes(), Path::new("config.json"))
}

fn problems(text: &str) -> Vec<String> {
    match read(text) {
        Err(LoadError::Invalid { source, .. }) => {
            source.0.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn of_engine(spec: &Value) -> (Spec, Ignored) {
    let path = std::env::temp_dir().join(format!("berth-config-{}.json", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, spec.to_string().as_bytes()).unwrap();
    let loaded = load_of_engine(&path);
    std::fs::remove_file(&path).unwrap();
    let loaded = loaded.unwrap();
    assert_eq!(parse(&loaded.text(), &path).unwrap(), loaded.spec);
    (loaded.spec, loaded.ignored)
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_its_path() {
    let text = r#"{"ociVersion": 1, "mounts": [{"destination": "/x"}, {"options": ["ro", 5]}],
        "process": {"user": {"uid": -1, "gid": 4294967296, "umask": 1.5}, "terminal": "yes"},
        "linux": {"namespaces": [{"type": "net"}, 7], "sysctl": {"a.b": 1}, "devices": {}}}"#;
    let expected = [
        "ociVersion: is an integer, not a string",
        "process.user.uid: -1 is not within 0 … 4294967295",
        "process.user.gid: 4294967296 is not within 0 … 4294967295",
        "process.user.umask: is a number that is no integer, not an integer",
        "process.terminal: is a string, not a boolean",
        "process.cwd: is missing",
        "mounts[1].destination: is missing",
        "mounts[1].options[1]: is an integer, not a string",
        "linux.sysctl.a.b: is an integer, not a string",
        "linux.namespaces[0].type: `net` is not one of mount, cgroup, uts, ipc, user, pid, network, time",
        "linux.namespaces[1]: is an integer, not an object",
        "linux.devices: is an object, not a list",
    ];
    let mut found = problems(text);
    found.sort_unstable();
    let mut expected = expected.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn nothing_may_be_given_twice_wherever_it_is() {
    let twice = |member: &str| format!(r#"{{"ociVersion": "1.2.0", {member}}}"#);
    let many: String = (0..40).map(|n| format!(r#""k{n}": "", "#)).collect();
    for (member, path) in [
        (r#""hostname": "a", "hostname": "b""#.to_owned(), "hostname"),
        (
            r#""annotations": {"x": "1", "y": "", "x": "2"}"#.to_owned(),
            "annotations.x",
        ),
        (
            format!(r#""annotations": {{{many}"k7": ""}}"#),
            "annotations.k7",
        ),
        (
            r#""mounts": [{"destination": "/", "destination": "/x"}]"#.to_owned(),
            "mounts[0].destination",
        ),
        (
            r#""newer": [{"a": {"b": 1, "b": 1}}]"#.to_owned(),
            "newer[0].a.b",
        ),
        (
            r#""hostname": "a", "host\u006eame": "b""#.to_owned(),
            "hostname",
        ),
    ] {
        assert_eq!(
            problems(&twice(&member)),
            [format!("{path}: is given twice")]
        );
    }
}

#[test]
fn null_is_as_if_it_were_not_there() {
    let text = r#"{"ociVersion": "1.2.0", "process": null, "mounts": null, "hostname": null,
        "linux": {"resources": {"memory": {"limit": null}}, "seccomp": null}}"#;
    let spec = read(text).unwrap();
    assert!(spec.process.is_none() && spec.mounts.is_empty());
    assert_eq!(
        problems(r#"{"ociVersion": null}"#),
        ["ociVersion: is missing"]
    );
    assert_eq!(
        problems(r#"{"ociVersion": "1.2.0", "linux": {"maskedPaths": [null]}}"#),
        ["linux.maskedPaths[0]: is null, not a string"]
    );
}

#[test]
fn a_text_is_read_as_serde_json_reads_it() {
    let deep = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let texts = [
        " { \"a\" : [ 1 , -1, 0, -0, 1.5, 1e3, true, false, null ] , \"a\" : { } }\n\t",
        r#"{"plain": "ä€", "esc\u0061ped": "\"\\\/\b\f\n\r\t\ud83d\ude00", "": []}"#,
        "[999999999999999999, 1000000000000000000, 18446744073709551615, 18446744073709551616]",
        "[-9223372036854775808, -9223372036854775809, 123456789012345678901234567890, 1e400]",
        "\"one\"",
        "7",
        "",
        " ",
        "{\"a\": 1,}",
        "[1,]",
        "[1 2]",
        "{\"a\" 1}",
        "{1: 2}",
        "{\"a\": 1} x",
        "[01]",
        "[+1]",
        "[-]",
        "[1.]",
        "[tru]",
        "[nullx]",
        "\"a\nb\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"open",
        "\"open\\",
        "{\"a\": [",
        "\u{feff}{}",
    ];
    let depths = [10, 63, 64, 65, 127, 128, 200].map(deep);
    for text in texts.into_iter().chain(depths.iter().map(String::as_str)) {
        same_tree(text.as_bytes());
    }
    same_tree(b"[\"\xff\"]");
    same_tree(b"[\"a\"\xff]");
}

/// Checks one text, with serde_json as the oracle.
pub(crate) fn same_tree(text: &[u8]) {
    let expected = serde_json::from_slice::<Node<'_>>(text).map_err(|error| error.to_string());
    let found = tree(text).map_err(|error| error.to_string());
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(text));
}

#[test]
fn integers_are_exact() {
    let limits = |memory: &str, nofile: &str| {
        format!(
            r#"{{"ociVersion": "1.2.0", "linux": {{"resources": {{"memory": {{"limit": {memory}}}}}}},
            "process": {{"cwd": "/", "rlimits": [{{"type": "RLIMIT_NOFILE", "soft": 1, "hard": {nofile}}}]}}}}"#
        )
    };
    let spec = read(&limits("-9223372036854775808", "18446744073709551615")).unwrap();
    let resources = spec.linux.unwrap().resources.unwrap();
    assert_eq!(resources.memory.unwrap().limit, Some(i64::MIN));
    assert_eq!(spec.process.unwrap().rlimits[0].hard, u64::MAX);
    assert_eq!(problems(&limits("9223372036854775808", "1")).len(), 1);
    assert_eq!(problems(&limits("1", "18446744073709551616")).len(), 1);
    assert_eq!(problems(&limits("1e3", "-1")).len(), 2);
}

#[test]
fn sections_of_other_platforms_are_known_and_kept() {
    let mut spec = base();
    for name in ["freebsd", "solaris", "windows", "vm", "zos"] {
        spec[name] = json!({"anything": [1]});
    }
    let (spec, ignored) = of_engine(&spec);
    assert_eq!(ignored, Ignored::default());
    assert!(spec.windows.is_some() && spec.freebsd.is_some() && spec.vm.is_some());
}

#[test]
fn an_unknown_capability_is_named_and_left_out() {
    let mut spec = base();
    spec["process"]["capabilities"] =
        json!({"bounding": ["CAP_KILL", "CAP_FLY"], "permitted": ["CAP_FLY", "kill"]});
    let (spec, ignored) = of_engine(&spec);
    assert_eq!(ignored.capabilities, ["CAP_FLY"]);
    let sets = spec.process.unwrap().capabilities.unwrap();
    assert_eq!((sets.bounding.0, sets.permitted.0), (1 << 5, 1 << 5));
}

#[test]
fn words_are_those_of_the_specification() {
    let mut process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "scheduler": {"policy": "SCHED_BATCH",
        "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_PARAMS"]}});
    let parse = |value: &Value| parse_process(value.to_string().as_bytes(), Path::new("p"));
    assert!(parse(&process).is_ok());
    process["scheduler"]["flags"] = json!(["SCHED_FLAG_FAST"]);
    assert!(parse(&process).is_err());
}

#[test]
#[expect(clippy::too_many_lines, reason = "one document with every member")]
fn what_is_written_is_what_was_read() {
    let map = json!([{"containerID": 0, "hostID": 1, "size": 2}]);
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL"]);
    let throttle = json!([{"major": 8, "minor": 0, "rate": 5}]);
    let hook = json!([{"path": "/h", "args": ["h"], "env": ["A=1"], "timeout": 3}]);
    let document = json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true, "consoleSize": {"height": 1, "width": 2},
            "user": {"uid": 1, "gid": 2, "umask": 3, "additionalGids": [4], "username": "u"},
            "args": ["sh"], "env": ["A=1"], "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "inheritable": capabilities,
                "permitted": capabilities, "ambient": capabilities},
            "rlimits": [{"type": "RLIMIT_RTTIME", "hard": 2, "soft": 1}],
            "noNewPrivileges": true, "apparmorProfile": "a", "oomScoreAdj": -5, "selinuxLabel": "s",
            "scheduler": {"policy": "SCHED_FIFO", "nice": -1, "priority": 2, "flags": ["SCHED_FLAG_RECLAIM"],
                "runtime": 1, "deadline": 2, "period": 3},
            "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 4},
            "execCPUAffinity": {"initial": "0", "final": "1-2"},
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h", "domainname": "d",
        "mounts": [{"destination": "/x", "type": "bind", "source": "/y", "options": ["ro"],
            "uidMappings": map, "gidMappings": map}],
        "hooks": {"prestart": hook, "createRuntime": hook, "createContainer": hook, "startContainer": hook,
            "poststart": hook, "poststop": hook},
        "annotations": {"a": "b", "c": ""},
        "linux": {
            "uidMappings": map, "gidMappings": map, "sysctl": {"net.a": "1"},
            "resources": {
                "devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 2, "access": "r"}],
                "memory": {"limit": 1, "reservation": 2, "swap": 3, "kernel": 4, "kernelTCP": 5, "swappiness": 6,
                    "disableOOMKiller": false, "useHierarchy": true, "checkBeforeUpdate": true},
                "cpu": {"shares": 1, "quota": -1, "burst": 2, "period": 3, "realtimeRuntime": 4, "realtimePeriod": 5,
                    "cpus": "0", "mems": "1", "idle": 0},
                "pids": {"limit": -1},
                "blockIO": {"weight": 10, "leafWeight": 11,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 1, "leafWeight": 2}],
                    "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
                    "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 18_446_744_073_709_551_615_u64}],
                "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 1}]},
                "rdma": {"m": {"hcaHandles": 1, "hcaObjects": 2}},
                "unified": {"memory.high": "1"},
            },
            "cgroupsPath": "/a", "namespaces": [{"type": "mount"}, {"type": "pid", "path": "/p"}],
            "devices": [{"path": "/dev/x", "type": "b", "major": 1, "minor": 2, "fileMode": 438, "uid": 3, "gid": 4}],
            "netDevices": {"eth0": {}, "eth1": {"name": "x"}},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_RISCV64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/l", "listenerMetadata": "m",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY", "errnoRet": 2,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}],
            },
            "rootfsPropagation": "slave", "maskedPaths": ["/m"], "readonlyPaths": ["/r"], "mountLabel": "l",
            "intelRdt": {"closID": "c", "schemata": ["s"], "l3CacheSchema": "l", "memBwSchema": "m",
                "enableCMT": true, "enableMBM": true, "enableMonitoring": true},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "personality": {"domain": "LINUX32", "flags": ["f"]},
            "timeOffsets": {"boottime": {"secs": -1, "nanosecs": 2}, "monotonic": {"secs": 1}},
        },
    });
    let spec = read(&document.to_string()).unwrap();
    let mut written = serde_json::to_value(&spec).unwrap();
    // A number that is 0 is written, which means the same.
    let offset = &mut written["linux"]["timeOffsets"]["monotonic"];
    assert_eq!(
        offset.as_object_mut().unwrap().remove("nanosecs"),
        Some(json!(0))
    );
    assert_eq!(written, document);
}

#[test]
fn parameters_of_a_tmpfs_are_left_out_of_a_bind_mount_and_told() {
    let of = |options: Value| json!([{ "destination": "/x", "type": "bind", "source": "/y", "options": options }]);
    let spec = |mounts| json!({ "ociVersion": "1.3.0", "mounts": mounts });
    let (read, ignored) = of_engine(&spec(of(json!(["ro", "size=64k", "mode=700", "odd=1"]))));
    assert_eq!(read.mounts[0].options, ["ro", "odd=1"]);
    assert_eq!(
        ignored.options,
        ["mounts[0].options: size=64k", "mounts[0].options: mode=700"]
    );
    let tmpfs = json!([{ "destination": "/x", "type": "tmpfs", "options": ["size=64k"] }]);
    let (read, ignored) = of_engine(&spec(tmpfs));
    assert_eq!(read.mounts[0].options, ["size=64k"]);
    assert!(ignored.options.is_empty());
}
