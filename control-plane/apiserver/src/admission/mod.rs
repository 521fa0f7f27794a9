//! What happens to an object between its body and the store: the built-in admission steps,
//! fixed in number and order.

mod pod;
mod service_account;

use berth_api::{
    meta,
    status::{self, Status},
};
use serde_json::Value;

use crate::handler::Call;

/// Completes (or refuses) an object that is to be created.
pub async fn mutate_create(call: &Call, object: &mut Value) -> Result<(), Status> {
    if !call.resource.group.is_empty() {
        return Ok(());
    }
    match call.resource.plural {
        "pods" => {
            pod::restrict_node(call, object)?;
            pod::set_priority(call, object)?;
            service_account::apply(call, object).await?;
            pod::add_default_tolerations(object);
        }
        "nodes" => restrict_node_creation(call, object)?,
        "namespaces" => complete_namespace(object),
        _ => {}
    }
    Ok(())
}

/// Refuses an update which rules of the kind's service forbid.
pub fn check_update(call: &Call, new: &Value, old: &Value) -> Result<(), Status> {
    let is_service = call.resource.group.is_empty() && call.resource.plural == "services";
    if is_service && new["spec"]["type"] != old["spec"]["type"] {
        return Err(status::refused(
            call.resource,
            meta::name(old),
            "changing spec.type is not served yet",
        ));
    }
    Ok(())
}

/// Refuses the deletion of what a cluster cannot be without.
pub fn check_delete(call: &Call, name: &str) -> Result<(), Status> {
    let immortal = ["default", "kube-system", "kube-public"];
    if call.resource.plural == "namespaces" && immortal.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(status::refused(call.resource, name, why));
    }
    Ok(())
}

/// A node may only create the Node with its own name.
fn restrict_node_creation(call: &Call, object: &Value) -> Result<(), Status> {
    let user = call.user.name.strip_prefix("system:node:");
    match user {
        Some(node) if meta::name(object) != node => Err(status::refused(
            call.resource,
            meta::name(object),
            &format!(
                "node '{node}' is not allowed to create node '{}'",
                meta::name(object)
            ),
        )),
        _ => Ok(()),
    }
}

/// A namespace carries its name as a label.
fn complete_namespace(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    }
}
