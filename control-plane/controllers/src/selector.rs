//! Label selectors as the query that the server evaluates.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;

use crate::run::ReconcileError;

/// The selector, parsed; an empty one is refused, because it would select everything.
pub(crate) fn parse(selector: &LabelSelector) -> Result<Selector, ReconcileError> {
    let empty = selector.match_labels.as_ref().is_none_or(|l| l.is_empty())
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty);
    if empty {
        return Err(ReconcileError::Invalid(
            "spec.selector is empty and would select everything".into(),
        ));
    }
    Selector::try_from(selector.clone())
        .map_err(|e| ReconcileError::Invalid(format!("spec.selector: {e}")))
}
