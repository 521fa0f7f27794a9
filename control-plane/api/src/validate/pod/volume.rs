//! Volumes of a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::super::field::FieldError;
use super::super::names;
use super::super::rules::{Faults, entries, items, text};
use super::env::{field_ref, resource_ref};

const MODE_RANGE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// The names of a spec's volumes, for its mounts to be checked against.
pub(super) struct Volumes<'a> {
    names: HashSet<&'a str>,
}

impl<'a> Volumes<'a> {
    /// Whether there is a volume of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Checks the volumes and collects their names.
    pub(super) fn check(path: &str, spec: &'a Value, faults: &mut Faults) -> Self {
        let mut seen = HashSet::new();
        for (path, volume) in items(spec, path, "volumes") {
            let name = text(volume, "name");
            let at = format!("{path}.name");
            let mut valid = false;
            if name.is_empty() {
                faults.required(at, "");
            } else if seen.contains(name) {
                faults.add(FieldError::duplicate(at, name));
            } else {
                let texts = names::dns1123_label(name);
                valid = texts.is_empty();
                faults.grammar(&at, name, texts);
            }
            source(&path, volume, faults);
            if valid {
                seen.insert(name);
            }
        }
        Volumes { names: seen }
    }
}

fn source(path: &str, volume: &Value, faults: &mut Faults) {
    let mut sources = entries(volume).filter(|(key, value)| *key != "name" && !value.is_null());
    let Some((kind, value)) = sources.next() else {
        faults.required(path, "must specify a volume type");
        return;
    };
    for (other, _) in sources {
        faults.forbidden(
            format!("{path}.{other}"),
            "may not specify more than 1 volume type",
        );
    }
    let at = format!("{path}.{kind}");
    match kind.as_str() {
        "hostPath" => host_path(&at, value, faults),
        "configMap" => {
            if text(value, "name").is_empty() {
                faults.required(format!("{at}.name"), "");
            }
            keys(&at, value, faults);
        }
        "secret" => {
            if text(value, "secretName").is_empty() {
                faults.required(format!("{at}.secretName"), "");
            }
            keys(&at, value, faults);
        }
        "downwardAPI" => {
            mode(&format!("{at}.defaultMode"), &value["defaultMode"], faults);
            for (path, file) in items(value, &at, "items") {
                downward_file(&path, file, faults);
            }
        }
        "projected" => projected(&at, value, faults),
        "persistentVolumeClaim" if text(value, "claimName").is_empty() => {
            faults.required(format!("{at}.claimName"), "");
        }
        "nfs" => {
            for field in ["server", "path"] {
                if text(value, field).is_empty() {
                    faults.required(format!("{at}.{field}"), "");
                }
            }
        }
        _ => {}
    }
}

fn host_path(path: &str, value: &Value, faults: &mut Faults) {
    let host = text(value, "path");
    if host.is_empty() {
        faults.required(format!("{path}.path"), "");
    } else {
        faults.no_backsteps(&format!("{path}.path"), host);
    }
    faults.one_of(
        &format!("{path}.type"),
        text(value, "type"),
        &HOST_PATH_TYPES,
    );
}

fn mode(path: &str, value: &Value, faults: &mut Faults) {
    if value.as_i64().is_some_and(|m| !(0..=0o777).contains(&m)) {
        faults.invalid(path, value, MODE_RANGE);
    }
}

/// `defaultMode` and `items` of a ConfigMap or Secret volume.
fn keys(path: &str, value: &Value, faults: &mut Faults) {
    mode(
        &format!("{path}.defaultMode"),
        &value["defaultMode"],
        faults,
    );
    for (path, item) in items(value, path, "items") {
        if text(item, "key").is_empty() {
            faults.required(format!("{path}.key"), "");
        }
        file_path(&path, item, faults);
        mode(&format!("{path}.mode"), &item["mode"], faults);
    }
}

/// `path` of a file in a volume: relative, and not reserved.
fn file_path(path: &str, item: &Value, faults: &mut Faults) {
    let at = format!("{path}.path");
    let file = text(item, "path");
    if file.is_empty() {
        faults.required(at, "");
        return;
    }
    faults.local_path(&at, file);
    if file.starts_with("..") && !file.starts_with("../") && file != ".." {
        faults.invalid(at, &file.into(), "must not start with '..'");
    }
}

fn downward_file(path: &str, file: &Value, faults: &mut Faults) {
    file_path(path, file, faults);
    let (field, resource) = (&file["fieldRef"], &file["resourceFieldRef"]);
    if !field.is_null() {
        field_ref(&format!("{path}.fieldRef"), field, &FIELDS, faults);
        if !resource.is_null() {
            faults.invalid(
                path,
                &"resource".into(),
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            );
        }
    } else if !resource.is_null() {
        resource_ref(&format!("{path}.resourceFieldRef"), resource, true, faults);
    } else {
        faults.required(path, "one of fieldRef and resourceFieldRef is required");
    }
    mode(&format!("{path}.mode"), &file["mode"], faults);
}

fn projected(path: &str, value: &Value, faults: &mut Faults) {
    mode(
        &format!("{path}.defaultMode"),
        &value["defaultMode"],
        faults,
    );
    for (path, source) in items(value, path, "sources") {
        let mut kinds = entries(source).filter(|(_, value)| !value.is_null());
        let Some((kind, one)) = kinds.next() else {
            continue;
        };
        if kinds.next().is_some() {
            faults.forbidden(
                path.as_str(),
                "may not specify more than 1 volume type per source",
            );
        }
        let at = format!("{path}.{kind}");
        match kind.as_str() {
            "configMap" | "secret" => {
                if text(one, "name").is_empty() {
                    faults.required(format!("{at}.name"), "");
                }
                keys(&at, one, faults);
            }
            "downwardAPI" => {
                for (path, file) in items(one, &at, "items") {
                    downward_file(&path, file, faults);
                }
            }
            "serviceAccountToken" => token(&at, one, faults),
            _ => {}
        }
    }
}

fn token(path: &str, token: &Value, faults: &mut Faults) {
    let seconds = &token["expirationSeconds"];
    let at = format!("{path}.expirationSeconds");
    match seconds.as_i64() {
        Some(n) if n < 600 => {
            faults.invalid(
                at,
                seconds,
                "may not specify a duration less than 10 minutes",
            );
        }
        Some(n) if n > 1 << 32 => {
            faults.invalid(
                at,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            );
        }
        _ => {}
    }
    file_path(path, token, faults);
}
