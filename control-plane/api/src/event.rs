//! Events are stored once and served in two shapes: core `v1` and
//! `events.k8s.io/v1`, whose fields have other names.

use serde_json::{Map, Value};

/// `events.k8s.io/v1` name → `v1` name; what is not listed has one name.
const NAMES: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];
const COUNT: (&str, &str) = ("deprecatedCount", "count");

/// The core shape of an event given in either shape.
pub fn to_core(event: &Value) -> Value {
    rename(event, "v1", |name| {
        NAMES
            .iter()
            .chain([&COUNT])
            .find(|n| n.0 == name)
            .map(|n| n.1)
    })
}

/// The `events.k8s.io/v1` shape of an event given in either shape.
pub fn to_events_v1(event: &Value) -> Value {
    rename(event, "events.k8s.io/v1", |name| {
        NAMES
            .iter()
            .chain([&COUNT])
            .find(|n| n.1 == name)
            .map(|n| n.0)
    })
}

fn rename(event: &Value, version: &str, to: impl Fn(&str) -> Option<&'static str>) -> Value {
    let mut out = Map::new();
    for (name, value) in event.as_object().into_iter().flatten() {
        out.insert(to(name).unwrap_or(name).to_owned(), value.clone());
    }
    out.insert("apiVersion".into(), version.into());
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn there_and_back() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod"}, "source": {"component": "c"},
            "reportingComponent": "r", "reason": "x"});
        let new = to_events_v1(&core);
        assert_eq!(new["note"], "m");
        assert_eq!(new["deprecatedCount"], 2);
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(new["apiVersion"], "events.k8s.io/v1");
        assert_eq!(to_core(&new), core);
        assert_eq!(to_core(&core), core);
    }
}
