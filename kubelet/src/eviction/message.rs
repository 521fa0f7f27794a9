//! Why a pod was evicted, in the stock kubelet's words.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;

use super::decide::Passed;
use crate::pod::{containers, init_containers};
use crate::resources::quantity;

/// The message of an eviction. `usage` are the pod's containers with what each uses of the
/// resource; those above their request are named.
#[must_use]
pub fn message(short: &Passed, pod: &Pod, usage: &[(String, u64)]) -> String {
    let resource = short.signal.resource();
    let shown = |amount| match resource {
        "memory" | "ephemeral-storage" => quantity::binary(amount),
        _ => amount.to_string(),
    };
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        shown(short.threshold),
        shown(short.available)
    );
    for container in init_containers(pod).iter().chain(containers(pod)) {
        let requests = container
            .resources
            .as_ref()
            .and_then(|r| r.requests.as_ref());
        let asked = u64::try_from(quantity::value_of(requests, resource)).unwrap_or_default();
        let used = usage.iter().find(|(name, _)| *name == container.name);
        if let Some((name, used)) = used.filter(|(_, used)| *used > asked) {
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "Container {name} was using {}, request is {}, has larger consumption of \
                 {resource}. ",
                shown(*used),
                shown(asked)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::threshold::Signal;
    use crate::testing::pod;

    #[test]
    fn the_stock_words() {
        let pod = pod(
            "containers: [{name: a, resources: {requests: {memory: 10Mi}}}, {name: b}, {name: c}]",
        );
        let usage = [("a", 11 << 20), ("b", 0), ("c", 1025)].map(|(n, u)| (n.to_owned(), u));
        let short = |signal| Passed {
            signal,
            threshold: 100 << 20,
            available: 1234,
        };
        assert_eq!(
            message(&short(Signal::MemoryAvailable), &pod, &usage),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1234. \
             Container a was using 11Mi, request is 10Mi, has larger consumption of memory. \
             Container c was using 1025, request is 0, has larger consumption of memory. "
        );
        assert_eq!(
            message(&short(Signal::PidAvailable), &pod, &[]),
            "The node was low on resource: pids. Threshold quantity: 104857600, available: 1234. "
        );
    }
}
