//! The node has the labels that the pod's selector and required affinity name.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::Objection;
use crate::snapshot::{NodeView, PodView};

pub(super) fn check(pod: &PodView, node: &NodeView) -> Objection {
    let selected = pod
        .node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    let required = pod
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let wanted = required.is_none_or(|required| {
        required
            .node_selector_terms
            .iter()
            .any(|term| matches(term, node))
    });
    if selected && wanted {
        return None;
    }
    Some(vec![
        "node(s) didn't match Pod's node affinity/selector".into(),
    ])
}

/// A term matches when all of its requirements do; an empty one matches nothing.
pub(crate) fn matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels
        .iter()
        .all(|r| holds(r, node.labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| r.key == "metadata.name" && holds(r, Some(&node.name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|v| v == value));
    let compare = |test: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(|v| v.parse().ok());
        let own = value.and_then(|v| v.parse().ok());
        own.zip(bound).is_some_and(|(own, bound)| test(own, bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|own, bound| own > bound),
        "Lt" => compare(|own, bound| own < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators() {
        let node = NodeView {
            name: "n".into(),
            labels: [
                ("zone".to_owned(), "a".to_owned()),
                ("gen".to_owned(), "3".to_owned()),
            ]
            .into(),
            ..NodeView::default()
        };
        for (key, operator, values, expected) in [
            ("zone", "In", vec!["a", "b"], true),
            ("zone", "NotIn", vec!["a"], false),
            ("none", "NotIn", vec!["a"], true),
            ("zone", "Exists", vec![], true),
            ("zone", "DoesNotExist", vec![], false),
            ("gen", "Gt", vec!["2"], true),
            ("gen", "Lt", vec!["2"], false),
            ("zone", "Gt", vec!["2"], false),
            ("zone", "Like", vec!["a"], false),
        ] {
            let term = NodeSelectorTerm {
                match_expressions: Some(vec![NodeSelectorRequirement {
                    key: key.into(),
                    operator: operator.into(),
                    values: Some(values.iter().map(ToString::to_string).collect()),
                }]),
                match_fields: None,
            };
            assert_eq!(
                matches(&term, &node),
                expected,
                "{key} {operator} {values:?}"
            );
        }
        assert!(!matches(&NodeSelectorTerm::default(), &node));
    }
}
