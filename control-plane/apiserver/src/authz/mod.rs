//! May they: a fixed policy. Roles of the stock server for everyone, the scheduler and the
//! controllers; rules of its own for nodes; all else is denied.

mod node;
mod role;

use berth_api::status::{self, Attempt, Status};
use serde_json::{Value, json};

use crate::{
    authn::{AUTHENTICATED, User},
    registry::Registry,
    request::{Attributes, Query},
};
use role::Rule;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// The judgement of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow,
    /// No rule allows it; the text, when not empty, says more.
    Deny(String),
}

/// Judges a request.
pub async fn decide(
    user: &User,
    attributes: &Attributes,
    query: &Query,
    registry: &Registry,
) -> Result<Decision, Status> {
    if user.in_group(MASTERS) || role::allow(&roles_of(user), attributes) {
        return Ok(Decision::Allow);
    }
    match node::name_of(user) {
        Some(node) => node::decide(node, attributes, query, registry).await,
        None => Ok(Decision::Deny(String::new())),
    }
}

/// Judges a request; a refusal is the 403 that the client gets.
pub async fn authorize(
    user: &User,
    attributes: &Attributes,
    query: &Query,
    registry: &Registry,
) -> Result<(), Status> {
    match decide(user, attributes, query, registry).await? {
        Decision::Allow => Ok(()),
        Decision::Deny(why) => Err(refusal(user, attributes, &why)),
    }
}

/// What a user may do, as the status of a SelfSubjectRulesReview. The rules of a node depend on
/// its pods and are left out: `incomplete`.
pub fn rules(user: &User) -> Value {
    let mut rules: Vec<Rule> = role::rules(&roles_of(user)).cloned().collect();
    if user.in_group(MASTERS) {
        rules.extend(role::everything());
    }
    let (resources, paths): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(Rule::is_about_resources);
    let mut status = json!({
        "resourceRules": resources, "nonResourceRules": paths, "incomplete": false,
    });
    if node::name_of(user).is_some() {
        status["incomplete"] = true.into();
        status["evaluationError"] = "the rules of a node depend on its pods".into();
    }
    status
}

fn refusal(user: &User, attributes: &Attributes, why: &str) -> Status {
    if !attributes.is_resource {
        return status::forbidden_path(&user.name, attributes.verb, &attributes.path);
    }
    status::forbidden(&Attempt {
        user: &user.name,
        verb: attributes.verb,
        group: &attributes.group,
        resource: &attributes.resource_and_subresource(),
        namespace: &attributes.namespace,
        name: &attributes.name,
        why,
    })
}

/// The roles bound to a user, as in the stock server's default bindings.
fn roles_of(user: &User) -> Vec<String> {
    let mut roles = vec!["system:public-info-viewer".to_owned()];
    if user.in_group(AUTHENTICATED) {
        roles.extend(["system:basic-user", "system:discovery"].map(str::to_owned));
    }
    if user.in_group("system:serviceaccounts") {
        roles.push("system:service-account-issuer-discovery".to_owned());
    }
    if user.name == "system:kube-scheduler" {
        roles.push("system:kube-scheduler".to_owned());
    }
    let controller = user.name.strip_prefix("system:serviceaccount:kube-system:");
    if let Some(name) = controller.filter(|name| crate::pki::CONTROLLERS.contains(name)) {
        roles.push(format!("system:controller:{name}"));
    }
    if node::name_of(user).is_some() {
        // The node agent programs services itself, under the node's identity.
        roles.push("system:node-proxier".to_owned());
    }
    roles
}
