//! `Status`: whether pods can be run, and what this runtime can do.

use std::collections::HashMap;

use berth_proto::cri;
use serde_json::json;

use crate::server::Server;
use crate::status::chain;

/// Tells the conditions, the handlers and their features.
pub async fn status(server: &Server, request: cri::StatusRequest) -> cri::StatusResponse {
    let conditions = vec![runtime_ready(server), network_ready(server).await];
    let handlers = server
        .config
        .runtimes
        .keys()
        .map(|name| cri::RuntimeHandler {
            name: name.clone(),
            features: Some(cri::RuntimeHandlerFeatures {
                recursive_read_only_mounts: name.is_empty(),
                user_namespaces: false,
            }),
        });
    cri::StatusResponse {
        status: Some(cri::RuntimeStatus { conditions }),
        info: if request.verbose {
            info(server)
        } else {
            HashMap::new()
        },
        runtime_handlers: handlers.collect(),
        features: Some(cri::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
        }),
    }
}

fn runtime_ready(server: &Server) -> cri::RuntimeCondition {
    let missing = server.missing_controllers();
    let message = match missing.is_empty() {
        true => String::new(),
        false => {
            let names: Vec<&str> = missing.keys().copied().collect();
            format!(
                "limits are not enforced: no controller {} in cgroup v2",
                names.join(", ")
            )
        }
    };
    cri::RuntimeCondition {
        r#type: "RuntimeReady".to_owned(),
        status: true,
        reason: if missing.is_empty() {
            String::new()
        } else {
            "DegradedCgroups".to_owned()
        },
        message,
    }
}

async fn network_ready(server: &Server) -> cri::RuntimeCondition {
    let status = server.network.status().await;
    cri::RuntimeCondition {
        r#type: "NetworkReady".to_owned(),
        status: status.is_ok(),
        reason: if status.is_ok() {
            String::new()
        } else {
            "NetworkNotReady".to_owned()
        },
        message: status.err().map(|error| chain(&error)).unwrap_or_default(),
    }
}

fn info(server: &Server) -> HashMap<String, String> {
    let config = json!({
        "socket": server.config.socket,
        "stateDir": server.config.state_dir,
        "dataDir": server.config.data_dir,
        "imageRoot": server.config.images.root,
        "cniConfDir": server.config.cni.conf_dir,
        "cgroupMount": server.cgroups.mount,
        "cgroupControllers": server.cgroups.controllers,
        "allowDegradedCgroups": server.config.allow_degraded_cgroups,
        "podCIDR": *server.pod_cidr.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
    });
    HashMap::from([("config".to_owned(), config.to_string())])
}
