//! `linux.timeOffsets`.

use berth_sys::ns::NamespaceKind;

use super::Errors;
use crate::plan::{Namespaces, TimeOffset};
use crate::spec::config::Linux;

/// Clocks that a time namespace shifts (time_namespaces(7)).
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

/// The offsets of a new time namespace.
pub(super) fn offsets(
    linux: &Linux,
    namespaces: &Namespaces,
    errors: &mut Errors,
) -> Vec<TimeOffset> {
    let mut out = Vec::new();
    for (name, offset) in &linux.time_offsets {
        let field = format!("linux.timeOffsets.{name}");
        let nanoseconds = offset.nanosecs;
        if nanoseconds >= 1_000_000_000 {
            errors.add(format!("{field}.nanosecs"), "is a second or more");
        }
        if !namespaces.create.contains(&NamespaceKind::Time) {
            errors.add(&field, "needs a new time namespace");
        }
        match CLOCKS.iter().find(|clock| *clock == name) {
            Some(clock) => out.push(TimeOffset {
                clock,
                seconds: offset.secs,
                nanoseconds,
            }),
            None => errors.add(field, "is not a clock of a time namespace"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{paths, plan, with};

    #[test]
    fn offsets_are_those_of_a_new_time_namespace() {
        let spec = with("/linux/namespaces/2", json!({"type": "time"}));
        let offsets = |value| {
            let mut spec = spec.clone();
            spec["linux"]["timeOffsets"] = value;
            spec
        };
        let fine = offsets(json!({"boottime": {"secs": -5, "nanosecs": 7}}));
        let made = plan(&fine).unwrap().namespaces.time_offsets;
        assert_eq!(made[0].to_string(), "boottime -5 7");
        for (value, path) in [
            (
                json!({"realtime": {"secs": 1}}),
                "linux.timeOffsets.realtime",
            ),
            (
                json!({"monotonic": {"nanosecs": 1_000_000_000}}),
                "linux.timeOffsets.monotonic.nanosecs",
            ),
        ] {
            assert_eq!(paths(&offsets(value)), [path]);
        }
        let shared = with("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}));
        assert_eq!(paths(&shared), ["linux.timeOffsets.monotonic"]);
    }
}
