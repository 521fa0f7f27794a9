//! Requests and what must stand in the configuration for them.

use std::io;

use berth_oci::spec::config::Spec;
use oci_spec::image::{Config, ConfigBuilder, ImageConfigurationBuilder};

use super::*;

struct Profiles;

impl SeccompSource for Profiles {
    fn default_profile(&self, capabilities: &[String]) -> Value {
        json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
            "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": capabilities.len().checked_sub(99),
        }]})
    }

    fn localhost_profile(&self, path: &Path) -> io::Result<Value> {
        if path == Path::new("/profiles/a.json") {
            return Ok(json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

fn image(config: Config) -> ImageConfiguration {
    ImageConfigurationBuilder::default()
        .architecture("amd64")
        .os("linux")
        .rootfs(
            oci_spec::image::RootFsBuilder::default()
                .typ("layers")
                .diff_ids(vec![])
                .build()
                .unwrap(),
        )
        .config(config)
        .build()
        .unwrap()
}

fn base_image() -> Config {
    ConfigBuilder::default()
        .entrypoint(vec!["/entry".to_owned()])
        .cmd(vec!["serve".to_owned()])
        .env(vec!["PATH=/bin".to_owned(), "MODE=image".to_owned()])
        .working_dir("/srv")
        .build()
        .unwrap()
}

pub fn command() -> cri::ContainerConfig {
    cri::ContainerConfig {
        command: vec!["sh".to_owned()],
        ..Default::default()
    }
}

pub fn secured(security: cri::LinuxContainerSecurityContext) -> cri::ContainerConfig {
    let linux = cri::LinuxContainerConfig {
        security_context: Some(security),
        resources: None,
    };
    cri::ContainerConfig {
        linux: Some(linux),
        ..command()
    }
}

pub fn build_in(
    config: &cri::ContainerConfig,
    pod: &cri::PodSandboxConfig,
) -> Result<Value, SpecError> {
    let bounding: BTreeSet<String> = ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_NET_RAW"]
        .map(str::to_owned)
        .into();
    let devices = [HostDevice {
        path: "/dev/kvm".into(),
        kind: 'c',
        major: 10,
        minor: 232,
        mode: 0o660,
        uid: 0,
        gid: 7,
    }];
    let input = SpecInput {
        config,
        image: &image(base_image()),
        user: &User {
            uid: 1000,
            gid: 1000,
            groups: vec![2000],
        },
        home: Some("/home/app"),
        pod: PodInput {
            id: "sandbox",
            config: pod,
            pause_pid: 77,
            target_pid: Some(88),
            files: Path::new("/run/pod"),
        },
        cgroup: Path::new("pods/p/c"),
        host: &HostInput {
            default_capabilities: CapabilitySet::Minimal,
            bounding: &bounding,
            oom_score_floor: Some(0),
            hugetlb: false,
            apparmor: false,
            seccomp: &Profiles,
            devices: &devices,
        },
    };
    let spec = build(&input)?;
    serde_json::from_value::<Spec>(spec.clone()).expect("a valid OCI configuration");
    Ok(spec)
}

fn built(config: &cri::ContainerConfig) -> Value {
    build_in(config, &cri::PodSandboxConfig::default()).unwrap()
}

fn mount<'a>(spec: &'a Value, destination: &str) -> Option<&'a Value> {
    spec["mounts"]
        .as_array()?
        .iter()
        .find(|mount| mount["destination"] == destination)
}

fn namespace<'a>(spec: &'a Value, kind: &str) -> Option<&'a Value> {
    spec["linux"]["namespaces"]
        .as_array()?
        .iter()
        .find(|entry| entry["type"] == kind)
}

#[test]
fn command_and_arguments_follow_the_image_until_replaced() {
    let list = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let table: [(&[&str], &[&str], &[&str]); 4] = [
        (&[], &[], &["/entry", "serve"]),
        (&[], &["x"], &["/entry", "x"]),
        (&["sh"], &[], &["sh"]),
        (&["sh"], &["-c"], &["sh", "-c"]),
    ];
    for (command, args, expected) in table {
        let config = cri::ContainerConfig {
            command: list(command),
            args: list(args),
            ..Default::default()
        };
        assert_eq!(built(&config)["process"]["args"], json!(expected));
    }
}

#[test]
fn the_requests_environment_wins() {
    let envs = vec![cri::KeyValue {
        key: "MODE".to_owned(),
        value: b"request".to_vec(),
    }];
    let pod = cri::PodSandboxConfig {
        hostname: "web-0".to_owned(),
        ..Default::default()
    };
    let config = cri::ContainerConfig {
        envs,
        tty: true,
        ..command()
    };
    let spec = build_in(&config, &pod).unwrap();
    assert_eq!(
        spec["process"]["env"],
        json!([
            "HOSTNAME=web-0",
            "TERM=xterm",
            "HOME=/home/app",
            "PATH=/bin",
            "MODE=request"
        ])
    );
    assert_eq!(spec["process"]["cwd"], "/srv");
    assert_eq!(spec["process"]["user"]["additionalGids"], json!([2000]));
    assert_eq!(spec["process"]["terminal"], true);
}

#[test]
fn capabilities_are_defaults_plus_added_minus_dropped() {
    let caps = |add: &[&str], drop: &[&str], privileged| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let capabilities = Some(cri::Capability {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            add_ambient_capabilities: Vec::new(),
        });
        let security = cri::LinuxContainerSecurityContext {
            capabilities,
            privileged,
            ..Default::default()
        };
        let spec = built(&secured(security));
        spec["process"]["capabilities"]["permitted"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(caps(&[], &[], false), 9);
    assert_eq!(caps(&["net_raw"], &["CAP_KILL"], false), 9);
    assert_eq!(caps(&[], &["ALL"], false), 0);
    assert_eq!(caps(&["NET_BIND_SERVICE"], &["ALL"], false), 1);
    assert_eq!(caps(&["ALL"], &[], false), 4);
    assert_eq!(caps(&["ALL"], &["KILL"], false), 3);
    assert_eq!(caps(&[], &["ALL"], true), 4);
}

#[test]
fn namespaces_are_the_pods_unless_asked_otherwise() {
    let spec = built(&command());
    for (kind, file) in [
        ("network", "net"),
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("pid", "pid"),
    ] {
        assert_eq!(
            namespace(&spec, kind).unwrap()["path"],
            format!("/proc/77/ns/{file}")
        );
    }
    let with = |options: cri::NamespaceOption| {
        built(&secured(cri::LinuxContainerSecurityContext {
            namespace_options: Some(options),
            ..Default::default()
        }))
    };
    let pid = |mode: cri::NamespaceMode| {
        with(cri::NamespaceOption {
            pid: mode.into(),
            ..Default::default()
        })
    };
    let own = pid(cri::NamespaceMode::Container);
    assert_eq!(namespace(&own, "pid").unwrap().get("path"), None);
    assert_eq!(namespace(&pid(cri::NamespaceMode::Node), "pid"), None);
    let target = pid(cri::NamespaceMode::Target);
    assert_eq!(
        namespace(&target, "pid").unwrap()["path"],
        "/proc/88/ns/pid"
    );
    let ipc = with(cri::NamespaceOption {
        ipc: cri::NamespaceMode::Node.into(),
        ..Default::default()
    });
    assert_eq!(namespace(&ipc, "ipc"), None);
    assert_eq!(mount(&ipc, "/dev/shm").unwrap()["source"], "/dev/shm");
}

#[test]
fn a_pod_on_the_hosts_network_has_the_hosts_name() {
    let options = cri::NamespaceOption {
        network: cri::NamespaceMode::Node.into(),
        ..Default::default()
    };
    let security = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(options),
        ..Default::default()
    };
    let linux = cri::LinuxPodSandboxConfig {
        security_context: Some(security),
        ..Default::default()
    };
    let pod = cri::PodSandboxConfig {
        linux: Some(linux),
        ..Default::default()
    };
    let spec = build_in(&command(), &pod).unwrap();
    assert_eq!(
        (namespace(&spec, "network"), namespace(&spec, "uts")),
        (None, None)
    );
}

#[test]
fn requested_mounts_replace_defaults_and_come_parents_first() {
    let bind = |container: &str, readonly, propagation: cri::MountPropagation| cri::Mount {
        container_path: container.to_owned(),
        host_path: "/host".to_owned(),
        readonly,
        propagation: propagation.into(),
        ..Default::default()
    };
    let config = cri::ContainerConfig {
        mounts: vec![
            bind(
                "/data/deep/",
                true,
                cri::MountPropagation::PropagationPrivate,
            ),
            bind(
                "/data",
                false,
                cri::MountPropagation::PropagationBidirectional,
            ),
            bind(
                "/etc/hosts",
                false,
                cri::MountPropagation::PropagationHostToContainer,
            ),
        ],
        ..command()
    };
    let spec = built(&config);
    let order: Vec<&str> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["destination"].as_str().unwrap())
        .collect();
    let at = |path| order.iter().position(|other| *other == path).unwrap();
    assert!(at("/data") < at("/data/deep"));
    assert_eq!(
        order.iter().filter(|path| **path == "/etc/hosts").count(),
        1
    );
    assert_eq!(mount(&spec, "/etc/hosts").unwrap()["source"], "/host");
    assert_eq!(
        mount(&spec, "/etc/resolv.conf").unwrap()["source"],
        "/run/pod/resolv.conf"
    );
    assert_eq!(
        mount(&spec, "/data").unwrap()["options"],
        json!(["rbind", "rshared", "rw"])
    );
    assert_eq!(
        mount(&spec, "/data/deep").unwrap()["options"],
        json!(["rbind", "rprivate", "ro"])
    );
    assert_eq!(spec["linux"]["rootfsPropagation"], "rshared");
}

#[test]
fn recursive_read_only_needs_read_only_and_private() {
    let mount = |readonly, propagation: cri::MountPropagation| {
        let mount = cri::Mount {
            container_path: "/a".to_owned(),
            host_path: "/b".to_owned(),
            readonly,
            propagation: propagation.into(),
            recursive_read_only: true,
            ..Default::default()
        };
        let config = cri::ContainerConfig {
            mounts: vec![mount],
            ..command()
        };
        build_in(&config, &cri::PodSandboxConfig::default())
    };
    let private = cri::MountPropagation::PropagationPrivate;
    let good = mount(true, private).unwrap();
    assert_eq!(
        super::tests::mount(&good, "/a").unwrap()["options"],
        json!(["rbind", "rprivate", "rro"])
    );
    assert!(mount(false, private).is_err());
    assert!(mount(true, cri::MountPropagation::PropagationHostToContainer).is_err());
    assert!(mount(true, cri::MountPropagation::PropagationBidirectional).is_err());
}

#[test]
fn a_privileged_container_is_not_confined() {
    let spec = built(&secured(cri::LinuxContainerSecurityContext {
        privileged: true,
        masked_paths: vec!["/proc/kcore".to_owned()],
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    }));
    assert_eq!(spec["linux"].get("maskedPaths"), None);
    assert_eq!(spec["linux"].get("seccomp"), None);
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/kvm");
    assert_eq!(namespace(&spec, "cgroup"), None);
    assert!(
        mount(&spec, "/sys").unwrap()["options"]
            .to_string()
            .contains("\"rw\"")
    );
}

#[test]
fn seccomp_profiles_come_from_their_source() {
    let profile = |kind: cri::security_profile::ProfileType, reference: &str| {
        let seccomp = cri::SecurityProfile {
            profile_type: kind.into(),
            localhost_ref: reference.to_owned(),
        };
        let security = cri::LinuxContainerSecurityContext {
            seccomp: Some(seccomp),
            ..Default::default()
        };
        build_in(&secured(security), &cri::PodSandboxConfig::default())
    };
    use cri::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    assert_eq!(built(&command())["linux"].get("seccomp"), None);
    assert_eq!(
        profile(Unconfined, "").unwrap()["linux"].get("seccomp"),
        None
    );
    let action = |spec: Value| spec["linux"]["seccomp"]["defaultAction"].clone();
    assert_eq!(
        action(profile(RuntimeDefault, "").unwrap()),
        "SCMP_ACT_ERRNO"
    );
    assert_eq!(
        action(profile(Localhost, "/profiles/a.json").unwrap()),
        "SCMP_ACT_ALLOW"
    );
    let missing = profile(Localhost, "/profiles/b.json").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cannot load the seccomp profile `/profiles/b.json`"
    );
}

#[test]
fn limits_are_those_given() {
    let resources = cri::LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 1 << 26,
        oom_score_adj: -997,
        hugepage_limits: vec![cri::HugepageLimit {
            page_size: "2MB".to_owned(),
            limit: 0,
        }],
        ..Default::default()
    };
    let linux = cri::LinuxContainerConfig {
        resources: Some(resources),
        security_context: None,
    };
    let spec = built(&cri::ContainerConfig {
        linux: Some(linux),
        ..command()
    });
    let built = &spec["linux"]["resources"];
    assert_eq!(
        built["cpu"],
        json!({ "shares": 512, "quota": 50_000, "period": 100_000 })
    );
    assert_eq!(built["memory"], json!({ "limit": 1 << 26 }));
    assert_eq!(built.get("hugepageLimits"), None);
    assert_eq!(
        spec["process"]["oomScoreAdj"], 0,
        "the floor of a host that cannot go lower"
    );
}

#[test]
fn an_update_keeps_what_it_does_not_set() {
    let current = cri::LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 7,
        ..Default::default()
    };
    let update = cri::LinuxContainerResources {
        cpu_shares: 1024,
        ..Default::default()
    };
    let merged = resources::merge(&current, &update);
    assert_eq!((merged.cpu_shares, merged.memory_limit_in_bytes), (1024, 7));
}

#[test]
fn an_update_of_memory_alone_keeps_the_swap() {
    for (memory, both, update, expected) in [
        (64, 64, 96, 96),
        (64, 80, 32, 48),
        (0, 0, 32, 0),
        (64, -1, 96, -1),
    ] {
        let limits = |memory, both| cri::LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: both,
            ..Default::default()
        };
        let merged = resources::merge(&limits(memory, both), &limits(update, 0));
        assert_eq!(
            merged.memory_swap_limit_in_bytes, expected,
            "{memory} {both}"
        );
    }
}
