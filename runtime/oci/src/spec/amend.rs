//! What a valid spec may say and the types of the `oci-spec` crate refuse. Only looked for where they did.

use std::str::FromStr;

use oci_spec::runtime::Capability;
use serde_json::Value;

/// Flags of `process.scheduler` that the crate knows by another name than the specification:
/// (config.md, the crate's).
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// The text of a spec or of a process, with unknown capabilities taken out into `unknown` and
/// misnamed flags renamed; `None` when there is nothing to change.
pub(super) fn amended(bytes: &[u8], unknown: &mut Vec<String>) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let process = if value.get("process").is_some() {
        value.get_mut("process")?
    } else {
        &mut value
    };
    let mut changed = take_unknown_capabilities(process, unknown);
    if let Some(flags) = process
        .pointer_mut("/scheduler/flags")
        .and_then(Value::as_array_mut)
    {
        for flag in flags {
            let known = SCHEDULER_FLAGS
                .iter()
                .find(|(name, _)| flag.as_str() == Some(name));
            if let Some((_, name)) = known {
                *flag = Value::from(*name);
                changed = true;
            }
        }
    }
    changed.then(|| value.to_string().into_bytes())
}

fn take_unknown_capabilities(process: &mut Value, unknown: &mut Vec<String>) -> bool {
    let mut changed = false;
    let sets = process
        .get_mut("capabilities")
        .and_then(Value::as_object_mut);
    let sets = sets.into_iter().flat_map(serde_json::Map::values_mut);
    for set in sets.filter_map(Value::as_array_mut) {
        set.retain(|name| {
            let Some(name) = name.as_str() else {
                return true; // not a name at all: an error of its own
            };
            let bare = name.trim_start_matches("CAP_");
            let known = Capability::from_str(bare).is_ok() || bare != bare.to_uppercase();
            if !known && !unknown.iter().any(|other| other == name) {
                unknown.push(name.to_owned());
            }
            changed |= !known;
            known
        });
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use crate::spec::load::{load_of_engine, parse_process};

    #[test]
    fn an_unknown_capability_is_named_and_left_out() {
        let spec = json!({"ociVersion": "1.2.0", "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL", "CAP_FLY"], "permitted": ["CAP_FLY"]}}});
        let path = std::env::temp_dir().join(format!("berth-amend-{}.json", std::process::id()));
        let mut file = std::fs::File::create(&path).unwrap();
        std::io::Write::write_all(&mut file, spec.to_string().as_bytes()).unwrap();
        let loaded = load_of_engine(&path);
        std::fs::remove_file(&path).unwrap();
        let (spec, ignored) = loaded.unwrap();
        assert_eq!(ignored.capabilities, ["CAP_FLY"]);
        let sets = spec
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap();
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(1));
    }

    #[test]
    fn flags_of_the_scheduler_have_the_names_of_the_specification() {
        let process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/", "scheduler": {"policy": "SCHED_BATCH",
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_PARAMS"]}});
        let parse = |value: &serde_json::Value| {
            parse_process(value.to_string().as_bytes(), Path::new("process.json"))
        };
        assert!(parse(&process).is_ok());
        let mut wrong = process;
        wrong["scheduler"]["flags"] = json!(["SCHED_FLAG_FAST"]);
        assert!(parse(&wrong).is_err());
    }
}
