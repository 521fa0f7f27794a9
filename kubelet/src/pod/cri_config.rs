//! The CRI form of a pod's sandbox and of its containers. Pure but for what is passed in.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use berth_proto::cri::{self as v1};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::actions::container_hash;
use super::expand::expand_with;
use super::runtime::{
    ANNOTATION_GRACE, ANNOTATION_HASH, ANNOTATION_MESSAGE_PATH, ANNOTATION_MESSAGE_POLICY,
    ANNOTATION_RESTART_COUNT, LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
};
use super::{
    containers, dns, grace_period, host_network, init_containers, name, namespace, security, uid,
};
use crate::config::Config;
use crate::resources::qos::{self, limits};
use crate::resources::quantity::{milli_of, value_of};

/// Default path of the termination message in a container.
pub const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// Directory of a pod's logs, named as every tool expects.
#[must_use]
pub fn log_dir(logs: &Path, pod: &Pod) -> std::path::PathBuf {
    logs.join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
}

/// The sandbox of a pod.
#[must_use]
pub fn sandbox(
    pod: &Pod,
    attempt: u32,
    config: &Config,
    cgroup_parent: String,
) -> v1::PodSandboxConfig {
    let host_dns = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname: dns::uts_name(pod, config),
        log_directory: log_dir(&config.pod_logs_dir, pod)
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns::dns_config(pod, config, &host_dns)),
        port_mappings: port_mappings(pod),
        labels: pod_labels(pod),
        annotations: plain(pod.metadata.annotations.as_ref()),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security::sandbox(pod)),
            sysctls: sysctls(pod),
            resources: Some(pod_resources(pod)),
            overhead: None,
        }),
        windows: None,
    }
}

fn plain(map: Option<&BTreeMap<String, String>>) -> HashMap<String, String> {
    map.into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels = plain(pod.metadata.labels.as_ref());
    labels.insert(LABEL_POD_NAME.into(), name(pod).to_owned());
    labels.insert(LABEL_POD_NAMESPACE.into(), namespace(pod).to_owned());
    labels.insert(LABEL_POD_UID.into(), uid(pod).to_owned());
    labels
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if host_network(pod) {
        return Vec::new();
    }
    init_containers(pod)
        .iter()
        .chain(containers(pod))
        .flat_map(|c| c.ports.iter().flatten())
        .filter(|p| p.host_port.is_some_and(|port| port > 0))
        .map(|p| v1::PortMapping {
            protocol: match p.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            }
            .into(),
            container_port: p.container_port,
            host_port: p.host_port.unwrap_or_default(),
            host_ip: p.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

fn sysctls(pod: &Pod) -> HashMap<String, String> {
    let asked = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref())
        .and_then(|c| c.sysctls.as_ref());
    let asked = asked.into_iter().flatten();
    asked.map(|s| (s.name.clone(), s.value.clone())).collect()
}

fn pod_resources(pod: &Pod) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: qos::CPU_PERIOD,
        cpu_quota: qos::pod_limit(pod, "cpu").map_or(0, qos::cpu_quota),
        cpu_shares: qos::cpu_shares(qos::pod_request(pod, "cpu")),
        memory_limit_in_bytes: qos::pod_limit(pod, "memory").unwrap_or_default() / 1000,
        ..Default::default()
    }
}

/// What goes into a container besides its spec.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Restart count.
    pub attempt: u32,
    /// Its environment.
    pub envs: Vec<(String, String)>,
    /// Its volumes, hosts file and termination message.
    pub mounts: Vec<v1::Mount>,
    /// The node's memory, bytes: for the OOM score.
    pub memory_capacity: i64,
    /// cgroup v2 has its controllers here.
    pub enforced: bool,
}

/// One container of a pod.
#[must_use]
pub fn container(pod: &Pod, spec: &Container, parts: Parts) -> v1::ContainerConfig {
    let expanded = |list: &Option<Vec<String>>| -> Vec<String> {
        let words = list.iter().flatten();
        words.map(|w| expand_with(w, &parts.envs)).collect()
    };
    let image = spec.image.clone().unwrap_or_default();
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: spec.name.clone(),
            attempt: parts.attempt,
        }),
        image: Some(v1::ImageSpec {
            image: image.clone(),
            user_specified_image: image,
            ..Default::default()
        }),
        command: expanded(&spec.command),
        args: expanded(&spec.args),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        labels: container_labels(pod, spec),
        annotations: annotations(pod, spec, parts.attempt),
        log_path: format!("{}/{}.log", spec.name, parts.attempt),
        stdin: spec.stdin == Some(true),
        stdin_once: spec.stdin_once == Some(true),
        tty: spec.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(pod, spec, &parts)),
            security_context: Some(security::container(pod, spec)),
        }),
        stop_signal: stop_signal(spec).into(),
        envs: parts
            .envs
            .into_iter()
            .map(|(key, value)| v1::KeyValue {
                key,
                value: value.into(),
            })
            .collect(),
        mounts: parts.mounts,
        ..Default::default()
    }
}

fn container_labels(pod: &Pod, spec: &Container) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_CONTAINER_NAME.into(), spec.name.clone()),
        (LABEL_POD_NAME.into(), name(pod).to_owned()),
        (LABEL_POD_NAMESPACE.into(), namespace(pod).to_owned()),
        (LABEL_POD_UID.into(), uid(pod).to_owned()),
    ])
}

fn annotations(pod: &Pod, spec: &Container, attempt: u32) -> HashMap<String, String> {
    let policy = spec.termination_message_policy.as_deref().unwrap_or("File");
    HashMap::from([
        (ANNOTATION_HASH.into(), container_hash(spec)),
        (ANNOTATION_RESTART_COUNT.into(), attempt.to_string()),
        (
            ANNOTATION_MESSAGE_PATH.into(),
            message_path(spec).to_owned(),
        ),
        (ANNOTATION_MESSAGE_POLICY.into(), policy.to_owned()),
        (ANNOTATION_GRACE.into(), grace_period(pod).to_string()),
    ])
}

/// Where the container writes its termination message.
#[must_use]
pub fn message_path(spec: &Container) -> &str {
    spec.termination_message_path
        .as_deref()
        .filter(|p| !p.is_empty())
        .unwrap_or(TERMINATION_MESSAGE_PATH)
}

fn stop_signal(spec: &Container) -> v1::Signal {
    let asked = spec.lifecycle.as_ref().and_then(|l| l.stop_signal.as_ref());
    asked
        .and_then(|name| v1::Signal::from_str_name(name))
        .unwrap_or(v1::Signal::RuntimeDefault)
}

fn resources(pod: &Pod, spec: &Container, parts: &Parts) -> v1::LinuxContainerResources {
    let memory = value_of(limits(spec), "memory");
    let mut unified = HashMap::new();
    if parts.enforced {
        // One process of a container out of memory ends the container, not a random part.
        unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    v1::LinuxContainerResources {
        cpu_period: qos::CPU_PERIOD,
        cpu_quota: qos::cpu_quota(milli_of(limits(spec), "cpu")),
        cpu_shares: qos::cpu_shares(qos::request_or_limit(spec, "cpu")),
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: memory,
        oom_score_adj: qos::oom_score_adj(pod, spec, parts.memory_capacity),
        unified,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::testing::pod;

    fn config() -> Config {
        Config::resolve(RawConfig {
            node_name: Some("n1".into()),
            ..RawConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn a_sandbox_says_who_where_and_how() {
        let pod = pod(
            "{containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080},
            {containerPort: 81}]}]}",
        );
        let got = sandbox(&pod, 2, &config(), "/kubepods/besteffort/podu1".into());
        assert_eq!(got.metadata.unwrap().attempt, 2);
        assert_eq!(got.log_directory, "/var/log/pods/default_web_u1");
        assert_eq!(got.port_mappings.len(), 1);
        assert_eq!(got.labels[LABEL_POD_UID], "u1");
        assert_eq!(
            got.linux.unwrap().cgroup_parent,
            "/kubepods/besteffort/podu1"
        );
    }

    #[test]
    fn a_container_has_its_words_expanded_and_its_limits_set() {
        let pod = pod(
            "{containers: [{name: a, image: i, command: [run], args: ['$(X)'],
            lifecycle: {stopSignal: SIGUSR1},
            resources: {limits: {cpu: 500m, memory: 64Mi}}}]}",
        );
        let parts = Parts {
            attempt: 1,
            envs: vec![("X".into(), "y".into())],
            mounts: Vec::new(),
            memory_capacity: 1 << 30,
            enforced: true,
        };
        let got = container(&pod, &containers(&pod)[0], parts);
        assert_eq!(
            (got.command, got.args),
            (vec!["run".into()], vec!["y".to_owned()])
        );
        assert_eq!(got.log_path, "a/1.log");
        assert_eq!(got.stop_signal, i32::from(v1::Signal::Sigusr1));
        let resources = got.linux.unwrap().resources.unwrap();
        assert_eq!((resources.cpu_quota, resources.cpu_shares), (50_000, 512));
        assert_eq!(resources.memory_limit_in_bytes, 64 << 20);
        assert_eq!(resources.oom_score_adj, -997);
        assert_eq!(resources.unified["memory.oom.group"], "1");
    }
}
