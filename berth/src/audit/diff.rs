//! `berth audit diff`: in what the kernel treated two processes differently.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use berth_audit::{Entry, Kind};
use serde_json::Value;

use super::{Place, each_entry, is_container, record};
use crate::config::File;

/// Flags of `berth audit diff`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// An entry by number, or a container
    a: String,
    /// Another one
    b: String,
}

/// Members by which the items of a list are told apart.
const KEYS: [&str; 3] = ["target", "kind", "name"];

/// Prints one line a difference; exit status 0 also where there are some.
pub fn run(options: &Options, file: &File) -> anyhow::Result<ExitCode> {
    let folder = options.place.folder(file);
    let (a, b) = (find(&folder, &options.a)?, find(&folder, &options.b)?);
    let (left, right) = (applied(&a)?, applied(&b)?);
    println!("--- {}", describe(&a));
    println!("+++ {}", describe(&b));
    let lines = differences(&left, &right);
    for line in &lines {
        println!("{line}");
    }
    if lines.is_empty() {
        println!("no difference");
    }
    Ok(ExitCode::SUCCESS)
}

fn find(folder: &Path, asked: &str) -> anyhow::Result<Entry> {
    let number = asked.parse::<u64>().ok();
    let mut found = None;
    each_entry(folder, |entry, _| {
        let meant = match number {
            Some(number) => entry.seq == number,
            None => entry.kind == Kind::Start && is_container(&entry, asked),
        };
        if meant {
            found = Some(entry);
        }
        Ok(())
    })?;
    let what = if number.is_some() {
        "entry"
    } else {
        "start of a container"
    };
    found.with_context(|| format!("the audit log has no {what} `{asked}`"))
}

fn describe(entry: &Entry) -> String {
    let subject = &entry.subject;
    let (kind, seq) = (entry.kind, entry.seq);
    let (namespace, pod, container) = (&subject.namespace, &subject.pod, &subject.container);
    format!(
        "entry {seq}: {kind} of {namespace}/{pod} {container}, {}",
        entry.time
    )
}

/// What the kernel reported, by path.
fn applied(entry: &Entry) -> anyhow::Result<BTreeMap<String, String>> {
    let record = record(entry);
    let mut leaves = BTreeMap::new();
    match &record {
        Value::Null => bail!("entry {} has no sandbox record", entry.seq),
        Value::Object(members) => match members.get("fields") {
            Some(Value::Object(fields)) => {
                for (name, field) in fields {
                    flatten(name, &field["applied"], &mut leaves);
                }
            }
            _ => bail!("entry {} tells nothing that the kernel reported", entry.seq),
        },
        other => flatten("", other, &mut leaves),
    }
    Ok(leaves)
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let joined = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (name, member) in members {
                flatten(&joined(name), member, leaves);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let key = KEYS.iter().find_map(|key| item[*key].as_str());
                match (key, item) {
                    (Some(key), _) => flatten(&format!("{path}[{key}]"), item, leaves),
                    // The items of a list of words come and go.
                    (None, Value::String(word)) => {
                        leaves.insert(format!("{path}[{word}]"), "yes".to_owned());
                    }
                    (None, _) => flatten(&format!("{path}[{index}]"), item, leaves),
                }
            }
        }
        Value::String(text) => {
            leaves.insert(path.to_owned(), text.clone());
        }
        other => {
            leaves.insert(path.to_owned(), other.to_string());
        }
    }
}

fn differences(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let differs = paths
        .into_iter()
        .filter(|path| left.get(*path) != right.get(*path));
    differs
        .map(|path| {
            let tell = |side: &BTreeMap<String, String>| {
                side.get(path)
                    .map_or("-".to_owned(), |text| format!("{text:?}"))
            };
            format!("{path}: {} {}", tell(left), tell(right))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_told_by_path() {
        let leaves = |value: Value| {
            let mut leaves = BTreeMap::new();
            flatten("", &value, &mut leaves);
            leaves
        };
        let left = leaves(json!({
            "capabilities": {"effective": ["CAP_CHOWN", "CAP_KILL"]},
            "mounts": [{"target": "/", "flags": ["ro"]}, {"target": "/a", "type": "tmpfs"}],
            "no_new_privs": true, "umask": "0022",
        }));
        let right = leaves(json!({
            "capabilities": {"effective": ["CAP_KILL"]},
            "mounts": [{"target": "/", "flags": ["rw"]}],
            "no_new_privs": false, "umask": "0022",
        }));
        assert_eq!(
            differences(&left, &right),
            [
                r#"capabilities.effective[CAP_CHOWN]: "yes" -"#,
                r#"mounts[/].flags[ro]: "yes" -"#,
                r#"mounts[/].flags[rw]: - "yes""#,
                r#"mounts[/a].target: "/a" -"#,
                r#"mounts[/a].type: "tmpfs" -"#,
                r#"no_new_privs: "true" "false""#,
            ]
        );
        assert!(differences(&left, &left).is_empty());
    }
}
