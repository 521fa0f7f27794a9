//! Label selectors (the query grammar and the `LabelSelector` object) and field
//! selectors.

mod field;
mod label;

pub use field::{FieldSelector, FieldSelectorError};
pub use label::{LabelSelector, LabelSelectorError, Operator, Requirement};
