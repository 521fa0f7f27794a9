//! Which sysctls a pod may set: those of the namespaces it does not share with the host.

use std::collections::HashMap;

use berth_proto::cri;

/// Names of the IPC namespace that are not below `fs.mqueue.` (ipc_namespaces(7)).
const IPC_NAMES: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Says which sysctl would change the host, if any.
pub fn check(
    sysctls: &HashMap<String, String>,
    options: &cri::NamespaceOption,
) -> Result<(), String> {
    for name in sysctls.keys() {
        let dotted = name.replace('/', ".");
        let of_ipc = IPC_NAMES.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        let shared = if of_ipc {
            options.ipc() == cri::NamespaceMode::Node
        } else if dotted.starts_with("net.") {
            options.network() == cri::NamespaceMode::Node
        } else {
            return Err(format!("`{name}` is not namespaced"));
        };
        if shared {
            return Err(format!(
                "`{name}` would change the host, whose namespace the pod shares"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sysctl_needs_a_namespace_of_the_pods_own() {
        let node = cri::NamespaceMode::Node.into();
        let host_network = cri::NamespaceOption {
            network: node,
            ..Default::default()
        };
        let host_ipc = cri::NamespaceOption {
            ipc: node,
            ..Default::default()
        };
        let own = cri::NamespaceOption::default();
        let table = [
            ("net.ipv4.ip_forward", &own, true),
            ("net/ipv4/conf/eth0.1/forwarding", &own, true),
            ("net.ipv4.ip_forward", &host_network, false),
            ("kernel.shm_rmid_forced", &own, true),
            ("fs.mqueue.msg_max", &own, true),
            ("fs.mqueue.msg_max", &host_ipc, false),
            ("kernel.pid_max", &own, false),
            ("vm.swappiness", &own, false),
        ];
        for (name, options, allowed) in table {
            let sysctls = HashMap::from([(name.to_owned(), "1".to_owned())]);
            assert_eq!(check(&sysctls, options).is_ok(), allowed, "{name}");
        }
    }
}
