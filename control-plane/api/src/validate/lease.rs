//! Leases.

use serde_json::Value;

use super::rules::Faults;

pub(super) fn check(new: &Value, faults: &mut Faults) {
    let spec = &new["spec"];
    let duration = &spec["leaseDurationSeconds"];
    if duration.as_i64().is_some_and(|n| n <= 0) {
        faults.invalid(
            "spec.leaseDurationSeconds",
            duration,
            "must be greater than 0",
        );
    }
    faults.non_negative("spec.leaseTransitions", &spec["leaseTransitions"]);
}
