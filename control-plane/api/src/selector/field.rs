//! Field selectors: `spec.nodeName=n1,status.phase!=Running`, with the fields
//! that each kind supports.

use serde_json::Value;

use crate::gvk::Resource;

/// Comparisons of fields that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

/// Why a field selector is refused; the texts are the server's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// The grammar is violated.
    #[error("invalid selector: '{selector}'; can't understand '{part}'")]
    Grammar {
        /// The whole text.
        selector: String,
        /// The term at fault.
        part: String,
    },
    /// The kind does not support the field.
    #[error("field label not supported: {0}")]
    Unsupported(String),
    /// The kind supports nothing but name and namespace.
    #[error(
        "\"{0}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    )]
    Unknown(String),
}

const POD: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];
const EVENT: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const NEW_EVENT: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

fn supported(resource: &Resource) -> &'static [&'static str] {
    match (resource.group, resource.plural) {
        ("", "pods") => POD,
        ("", "events") => EVENT,
        ("events.k8s.io", "events") => NEW_EVENT,
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("apps", "replicasets") => &["status.replicas"],
        _ => &[],
    }
}

impl FieldSelector {
    /// Parses a `fieldSelector` query parameter for one kind.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, FieldSelectorError> {
        let mut selector = FieldSelector::default();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let fault = || FieldSelectorError::Grammar {
                selector: text.to_owned(),
                part: part.to_owned(),
            };
            let (field, value, equal) = split_term(part).ok_or_else(fault)?;
            let value = unescape(value).ok_or_else(fault)?;
            check_supported(resource, field)?;
            selector.terms.push(Term {
                field: field.to_owned(),
                value,
                equal,
            });
        }
        Ok(selector)
    }

    /// Whether no comparison is made.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, when the selector demands one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms
            .iter()
            .find(|t| t.equal && t.field == field)
            .map(|t| t.value.as_str())
    }

    /// Whether every comparison holds for the object.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms
            .iter()
            .all(|term| (value_of(object, &term.field) == term.value) == term.equal)
    }
}

fn check_supported(resource: &Resource, field: &str) -> Result<(), FieldSelectorError> {
    let fields = supported(resource);
    let meta = field == "metadata.name" || (field == "metadata.namespace" && resource.namespaced);
    if meta || fields.contains(&field) {
        Ok(())
    } else if fields.is_empty() {
        Err(FieldSelectorError::Unknown(field.to_owned()))
    } else {
        Err(FieldSelectorError::Unsupported(field.to_owned()))
    }
}

fn value_of(object: &Value, field: &str) -> String {
    if field == "source" {
        let component = object["source"]["component"].as_str().unwrap_or_default();
        let reporter = object["reportingComponent"].as_str().unwrap_or_default();
        return if component.is_empty() {
            reporter
        } else {
            component
        }
        .to_owned();
    }
    let value = field.split('.').try_fold(object, |at, name| at.get(name));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) if field == "status.podIPs" => list
            .first()
            .and_then(|ip| ip["ip"].as_str())
            .unwrap_or_default()
            .to_owned(),
        Some(Value::Null) | None => match field {
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" => "0".to_owned(),
            _ => String::new(),
        },
        Some(other) => other.to_string(),
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, &str, bool)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, value, false));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, value, true))
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                e @ ('\\' | ',' | '=') => out.push(e),
                _ => return None,
            },
            ',' | '=' => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk::find;
    use serde_json::json;

    #[test]
    fn pods() {
        let pods = find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (text, matches) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=n,status.phase==Running", true),
            ("spec.nodeName=", false),
            ("status.podIP=", true),
            ("spec.hostNetwork=false", true),
        ] {
            assert_eq!(
                FieldSelector::parse(pods, text).unwrap().matches(&pod),
                matches,
                "{text}"
            );
        }
        let selector = FieldSelector::parse(pods, "spec.nodeName=n").unwrap();
        assert_eq!(selector.required("spec.nodeName"), Some("n"));
    }

    #[test]
    fn refusals() {
        for (group, plural, text, message) in [
            (
                "",
                "pods",
                "spec.foo=1",
                "field label not supported: spec.foo",
            ),
            (
                "",
                "pods",
                "spec.foo",
                "invalid selector: 'spec.foo'; can't understand 'spec.foo'",
            ),
            (
                "apps",
                "deployments",
                "spec.foo=1",
                "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
        ] {
            let resource = find(group, "v1", plural).unwrap();
            let error = FieldSelector::parse(resource, text).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
