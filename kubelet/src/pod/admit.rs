//! Whether this node takes a pod. Pure; a refusal makes the pod Failed with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{containers, host_network, init_containers, is_critical, unsupported};
use crate::node::Pressure;
use crate::resources::qos::{QosClass, pod_request};

/// Why the node does not take a pod: becomes `status.reason` and `status.message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// CamelCase reason.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What the node has to give.
#[derive(Debug, Clone, Default)]
pub struct NodeFit {
    /// Allocatable CPU in millicores.
    pub cpu_milli: i64,
    /// Allocatable memory in bytes.
    pub memory: i64,
    /// Most pods.
    pub pods: i64,
    /// The Node's labels, for `nodeSelector`.
    pub labels: BTreeMap<String, String>,
}

/// Sysctls that are namespaced and harmless to neighbours.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Judges a pod against the node, what it is short of and the other pods on it (terminated
/// ones left out).
///
/// # Errors
/// The first reason to refuse it.
pub fn admit(
    pod: &Pod,
    node: &NodeFit,
    pressure: Pressure,
    others: &[Arc<Pod>],
) -> Result<(), Rejection> {
    honoured(pod)?;
    bearable(pod, pressure)?;
    selected(pod, node)?;
    sysctls(pod)?;
    host_ports(pod, others)?;
    fits(pod, node, others)
}

fn honoured(pod: &Pod) -> Result<(), Rejection> {
    let json = serde_json::to_value(pod).map_err(|error| Rejection {
        reason: "UnexpectedAdmissionError".into(),
        message: format!("cannot read the pod: {error}"),
    })?;
    match unsupported::first(&json) {
        Some(path) => Err(Rejection {
            message: format!("Pod was rejected: field {path} is not supported by this node"),
            reason: "UnsupportedField".into(),
        }),
        None => Ok(()),
    }
}

/// A node under pressure takes critical pods only; one short of memory alone also those
/// that ask for some, and those that tolerate its taint.
fn bearable(pod: &Pod, pressure: Pressure) -> Result<(), Rejection> {
    let conditions = [
        (pressure.memory, "MemoryPressure"),
        (pressure.disk, "DiskPressure"),
        (pressure.pid, "PIDPressure"),
    ];
    let held: Vec<&str> = conditions.iter().filter(|c| c.0).map(|c| c.1).collect();
    let spared = held == ["MemoryPressure"]
        && (QosClass::of(pod) != QosClass::BestEffort
            || tolerates(pod, "node.kubernetes.io/memory-pressure"));
    if held.is_empty() || is_critical(pod) || spared {
        return Ok(());
    }
    Err(Rejection {
        reason: "Evicted".into(),
        message: format!(
            "Pod was rejected: The node had condition: [{}]. ",
            held.join(" ")
        ),
    })
}

/// Whether the pod tolerates the NoSchedule taint `key`, which has no value.
fn tolerates(pod: &Pod, key: &str) -> bool {
    let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_ref());
    tolerations.into_iter().flatten().any(|t| {
        let is = |field: &Option<String>, wanted: &str| {
            field.as_deref().is_none_or(|f| f.is_empty() || f == wanted)
        };
        let any_value = t.operator.as_deref() == Some("Exists");
        is(&t.effect, "NoSchedule") && is(&t.key, key) && (any_value || is(&t.value, ""))
    })
}

fn selected(pod: &Pod, node: &NodeFit) -> Result<(), Rejection> {
    let selector = pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    let matches = selector
        .into_iter()
        .flatten()
        .all(|(k, v)| node.labels.get(k) == Some(v));
    if matches {
        return Ok(());
    }
    Err(Rejection {
        reason: "NodeAffinity".into(),
        message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's \
                  node affinity/selector"
            .into(),
    })
}

fn sysctls(pod: &Pod) -> Result<(), Rejection> {
    let asked = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref())
        .and_then(|c| c.sysctls.as_ref());
    match asked
        .into_iter()
        .flatten()
        .find(|s| !SAFE_SYSCTLS.contains(&s.name.as_str()))
    {
        Some(sysctl) => Err(Rejection {
            reason: "SysctlForbidden".into(),
            message: format!(
                "Pod was rejected: forbidden sysctl: \"{}\" not allowlisted",
                sysctl.name
            ),
        }),
        None => Ok(()),
    }
}

fn host_ports(pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    let mine = ports_of(pod);
    let taken = others.iter().flat_map(|other| ports_of(other));
    for theirs in taken {
        let clash = mine.iter().any(|port| {
            port.0 == theirs.0
                && port.1 == theirs.1
                && (port.2 == theirs.2 || port.2.is_empty() || theirs.2.is_empty())
        });
        if clash {
            return Err(Rejection {
                reason: "NodePorts".into(),
                message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have \
                          free ports for the requested pod ports"
                    .into(),
            });
        }
    }
    Ok(())
}

/// Host ports of a pod: port, protocol, address (empty = all).
fn ports_of(pod: &Pod) -> Vec<(i32, String, String)> {
    let hosted = host_network(pod);
    init_containers(pod)
        .iter()
        .chain(containers(pod))
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| {
            let port = p.host_port.or(hosted.then_some(p.container_port))?;
            let address = match p.host_ip.as_deref() {
                None | Some("0.0.0.0" | "::") => "",
                Some(ip) => ip,
            };
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((port, protocol, address.to_owned()))
        })
        .collect()
}

fn fits(pod: &Pod, node: &NodeFit, others: &[Arc<Pod>]) -> Result<(), Rejection> {
    let out_of = |resource: &str, requested: i64, used: i64, capacity: i64| Rejection {
        reason: format!("OutOf{resource}"),
        message: format!(
            "Pod was rejected: Node didn't have enough resource: {resource}, requested: \
             {requested}, used: {used}, capacity: {capacity}"
        ),
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count >= node.pods {
        return Err(out_of("pods", 1, count, node.pods));
    }
    if let Some(name) = foreign(pod) {
        return Err(out_of(&name, pod_request(pod, &name) / 1000, 0, 0));
    }
    for (resource, scale, capacity) in [("cpu", 1, node.cpu_milli), ("memory", 1000, node.memory)] {
        let requested = pod_request(pod, resource) / scale;
        let used: i64 = others
            .iter()
            .map(|o| pod_request(o, resource) / scale)
            .sum();
        if requested > 0 && used + requested > capacity {
            return Err(out_of(resource, requested, used, capacity));
        }
    }
    Ok(())
}

/// A resource that a node must provide itself and this one has none of (huge pages).
/// Extended ones, with a `/` in their name, are counted by who announced them.
fn foreign(pod: &Pod) -> Option<String> {
    let own = ["cpu", "memory", "ephemeral-storage"];
    let mut lists = init_containers(pod)
        .iter()
        .chain(containers(pod))
        .filter_map(|c| c.resources.as_ref())
        .flat_map(|r| r.requests.iter().chain(&r.limits));
    lists.find_map(|list| {
        let foreign = |name: &&String| !own.contains(&name.as_str()) && !name.contains('/');
        list.keys().find(foreign).cloned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    const NONE: Pressure = Pressure {
        memory: false,
        disk: false,
        pid: false,
    };

    #[test]
    fn a_node_under_pressure_takes_what_it_must() {
        let memory = Pressure {
            memory: true,
            ..NONE
        };
        let disk = Pressure { disk: true, ..NONE };
        let both = Pressure {
            memory: true,
            ..disk
        };
        let pid = Pressure { pid: true, ..NONE };
        let best_effort = "containers: [{name: c}]";
        let burstable = "containers: [{name: c, resources: {requests: {cpu: 1m}}}]";
        let critical = "{priority: 2000000000, containers: [{name: c}]}";
        let tolerant = "{tolerations: [{key: node.kubernetes.io/memory-pressure,
            operator: Exists}], containers: [{name: c}]}";
        let other_value = "{tolerations: [{key: node.kubernetes.io/memory-pressure,
            value: x}], containers: [{name: c}]}";
        for (spec, pressure, named) in [
            (best_effort, NONE, ""),
            (best_effort, memory, "[MemoryPressure]"),
            (best_effort, disk, "[DiskPressure]"),
            (best_effort, pid, "[PIDPressure]"),
            (burstable, memory, ""),
            (burstable, both, "[MemoryPressure DiskPressure]"),
            (burstable, pid, "[PIDPressure]"),
            (tolerant, memory, ""),
            (tolerant, both, "[MemoryPressure DiskPressure]"),
            (other_value, memory, "[MemoryPressure]"),
            (critical, both, ""),
        ] {
            let got = admit(&pod(spec), &node(), pressure, &[]).err();
            let expected = (!named.is_empty()).then(|| Rejection {
                reason: "Evicted".into(),
                message: format!("Pod was rejected: The node had condition: {named}. "),
            });
            assert_eq!(got, expected, "{spec} {pressure:?}");
        }
    }

    fn node() -> NodeFit {
        NodeFit {
            cpu_milli: 2000,
            memory: 1 << 30,
            pods: 2,
            labels: BTreeMap::from([("disk".into(), "ssd".into())]),
        }
    }

    #[test]
    fn each_reason_has_its_case() {
        let other = Arc::new(pod(
            "containers: [{name: o, image: i, ports: [{containerPort: 1, hostPort: 80}],
              resources: {requests: {cpu: 1500m}}}]",
        ));
        for (spec, reason) in [
            ("containers: [{name: c, image: i}]", ""),
            (
                "{hostUsers: false, containers: [{name: c, image: i}]}",
                "UnsupportedField",
            ),
            (
                "{nodeSelector: {disk: hdd}, containers: [{name: c, image: i}]}",
                "NodeAffinity",
            ),
            (
                "{nodeSelector: {disk: ssd}, containers: [{name: c, image: i}]}",
                "",
            ),
            (
                "{securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}, containers: []}",
                "SysctlForbidden",
            ),
            (
                "containers: [{name: c, ports: [{containerPort: 2, hostPort: 80}]}]",
                "NodePorts",
            ),
            (
                "containers: [{name: c, ports: [{containerPort: 2, hostPort: 80, protocol: UDP}]}]",
                "",
            ),
            (
                "containers: [{name: c, resources: {requests: {cpu: 600m}}}]",
                "OutOfcpu",
            ),
            (
                "containers: [{name: c, resources: {requests: {memory: 2Gi}}}]",
                "OutOfmemory",
            ),
            (
                "containers: [{name: c, resources: {limits: {hugepages-2Mi: 4Mi}}}]",
                "OutOfhugepages-2Mi",
            ),
            (
                "containers: [{name: c, resources: {limits: {example.com/dongle: 1}}}]",
                "",
            ),
        ] {
            let got = admit(&pod(spec), &node(), NONE, std::slice::from_ref(&other));
            let got = got.err().map(|r| r.reason).unwrap_or_default();
            assert_eq!(got, reason, "{spec}");
        }
        let full = [other.clone(), other];
        let small = pod("containers: [{name: c, image: i}]");
        assert_eq!(
            admit(&small, &node(), NONE, &full).unwrap_err().reason,
            "OutOfpods"
        );
    }

    #[test]
    fn the_refused_field_is_named() {
        let pod = pod("{containers: [{name: c}], volumes: [{name: v, nfs: {server: s, path: p}}]}");
        let message = admit(&pod, &node(), NONE, &[]).unwrap_err().message;
        assert!(message.contains("spec.volumes[0].nfs"), "{message}");
    }
}
