//! What a pod asks for: the largest it needs at any time (KEP-753's formula). Pure.

use std::collections::BTreeMap;

use berth_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// Amounts by resource name: `cpu` in thousandths of a core, all others in units.
pub(crate) type Amounts = BTreeMap<String, i128>;

/// The requests of the pod as a whole, plus one of `pods`.
pub(crate) fn of_pod(spec: &PodSpec) -> Amounts {
    let mut running = Amounts::new();
    for container in &spec.containers {
        add(&mut running, &of_container(container));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for init in spec.init_containers.iter().flatten() {
        let own = of_container(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            let mut during = sidecars.clone();
            add(&mut during, &own);
            raise(&mut peak, &during);
        }
    }
    add(&mut running, &sidecars);
    raise(&mut running, &peak);
    if let Some(overhead) = &spec.overhead {
        add(&mut running, &parse(overhead));
    }
    running.insert("pods".into(), 1);
    running
}

fn of_container(container: &Container) -> Amounts {
    let resources = container.resources.clone().unwrap_or_default();
    parse(&resources.requests.unwrap_or_default())
}

/// Reads a resource list; what is no quantity counts as nothing (the server validates).
pub(crate) fn parse(list: &BTreeMap<String, ApiQuantity>) -> Amounts {
    list.iter()
        .filter_map(|(name, quantity)| {
            let quantity = Quantity::parse(&quantity.0).ok()?;
            let amount = if name == "cpu" {
                quantity.milli_value()
            } else {
                quantity.value()
            };
            Some((name.clone(), amount))
        })
        .collect()
}

pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let held = to.entry(name.clone()).or_default();
        *held = (*held).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_containers_count_by_their_peak_and_sidecars_stay() {
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}],
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "i", "resources": {"requests": {"cpu": "400m"}}},
            ],
        }))
        .unwrap();
        let amounts = of_pod(&spec);
        assert_eq!(amounts["cpu"], 450);
        assert_eq!(amounts["memory"], 1 << 20);
        assert_eq!(amounts["pods"], 1);
    }
}
