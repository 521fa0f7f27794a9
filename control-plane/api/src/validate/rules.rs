//! Collecting faults while walking an object, and rules that many kinds share.

use std::collections::HashSet;

use serde_json::Value;

use super::field::FieldError;
use super::names;

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) list: Vec<FieldError>,
}

impl Faults {
    pub(super) fn add(&mut self, error: FieldError) {
        self.list.push(error);
    }

    pub(super) fn required(&mut self, path: impl Into<String>, detail: &str) {
        self.add(FieldError::required(path, detail));
    }

    pub(super) fn forbidden(&mut self, path: impl Into<String>, detail: &str) {
        self.add(FieldError::forbidden(path, detail));
    }

    pub(super) fn invalid(&mut self, path: impl Into<String>, value: &Value, detail: &str) {
        self.add(FieldError::invalid(path, value.clone(), detail));
    }

    /// One fault per text of a grammar.
    pub(super) fn grammar(&mut self, path: &str, value: &str, texts: Vec<String>) {
        for text in texts {
            self.add(FieldError::invalid(path, value, text));
        }
    }

    /// The value must be one of a closed list.
    pub(super) fn one_of(&mut self, path: &str, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.add(FieldError::not_supported(path, value, supported));
        }
    }

    /// Required, and one of a closed list.
    pub(super) fn required_one_of(&mut self, path: &str, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else {
            self.one_of(path, value, supported);
        }
    }

    /// A number that must not be negative.
    pub(super) fn non_negative(&mut self, path: &str, value: &Value) {
        if value.as_i64().is_some_and(|n| n < 0) {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// A port number, or the name of one.
    pub(super) fn port_or_name(&mut self, path: &str, value: &Value) {
        match value {
            Value::String(name) => self.grammar(path, name, names::port_name(name)),
            number => {
                for text in names::port_number(number.as_i64().unwrap_or_default()) {
                    let shown: Value = number.as_i64().unwrap_or_default().into();
                    self.invalid(path, &shown, &text);
                }
            }
        }
    }

    /// A port number.
    pub(super) fn port(&mut self, path: &str, number: i64) {
        for text in names::port_number(number) {
            self.invalid(path, &number.into(), &text);
        }
    }

    /// The field must be as it was.
    pub(super) fn immutable(&mut self, path: &str, new: &Value, old: &Value) {
        if !crate::strategy::same(Some(new), Some(old)) {
            self.invalid(path, new, "field is immutable");
        }
    }

    /// A relative path that does not climb.
    pub(super) fn local_path(&mut self, path: &str, value: &str) {
        if value.starts_with('/') {
            self.add(FieldError::invalid(path, value, "must be a relative path"));
        }
        self.no_backsteps(path, value);
    }

    /// A path without `..`.
    pub(super) fn no_backsteps(&mut self, path: &str, value: &str) {
        if value.split('/').any(|part| part == "..") {
            self.add(FieldError::invalid(path, value, "must not contain '..'"));
        }
    }

    /// Labels: keys and values.
    pub(super) fn labels(&mut self, path: &str, labels: &Value) {
        for (key, value) in entries(labels) {
            self.grammar(path, key, names::qualified_name(key));
            let value = value.as_str().unwrap_or_default();
            self.grammar(path, value, names::label_value(value));
        }
    }
}

/// The text at `key`, or empty.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The items at `key`, with their paths.
pub(super) fn items<'a>(
    value: &'a Value,
    path: &str,
    key: &str,
) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
    let path = format!("{path}.{key}");
    let path = path.trim_start_matches('.').to_owned();
    value[key]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .map(move |(index, item)| (format!("{path}[{index}]"), item))
}

/// The entries of an object.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Names that must differ.
#[derive(Default)]
pub(super) struct Unique<'a> {
    seen: HashSet<&'a str>,
}

impl<'a> Unique<'a> {
    /// Whether the name is new.
    pub(super) fn insert(&mut self, name: &'a str) -> bool {
        self.seen.insert(name)
    }
}
