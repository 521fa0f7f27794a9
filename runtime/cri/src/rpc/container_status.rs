//! `ContainerStatus`.

use std::collections::HashMap;

use berth_proto::cri;
use serde_json::{Value, json};
use tonic::Status;

use crate::container::create::CONFIG_NAME;
use crate::record;
use crate::server::Server;
use crate::status;

/// Tells the status of the container.
pub fn container_status(
    server: &Server,
    request: cri::ContainerStatusRequest,
) -> Result<cri::ContainerStatusResponse, Status> {
    let record = server
        .containers
        .find(&request.container_id)
        .map_err(status::from)?;
    let mut info = HashMap::new();
    if request.verbose {
        let path = server.containers.dir(&record.id).join(CONFIG_NAME);
        // Gone after a reboot.
        let spec = record::read::<Value>(&path).ok().flatten();
        let details = json!({
            "pid": record.pid().unwrap_or(0),
            "sandboxID": record.sandbox,
            "cgroup": record.cgroup,
            "rootfs": record.rootfs,
            "notEnforced": record.not_enforced,
            "runtimeSpec": spec,
        });
        info.insert("info".to_owned(), details.to_string());
    }
    Ok(cri::ContainerStatusResponse {
        status: Some(record.to_status()),
        info,
    })
}
