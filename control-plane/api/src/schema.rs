//! The type of every object, and decoding of request bodies against it.
//!
//! The table in `data/schema.txt` has one type a line, its fields below it,
//! indented: name, kind, flags. It holds what the stock server publishes in its
//! OpenAPI documents, and of each field whether an empty value is kept when the
//! object is written (`keep`) and whether empty differs from absent (`ptr`).

mod body;
mod decode;
mod normal;
mod parse;

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::Value;

pub use body::{DecodeError, decode_body};
pub use decode::{
    Decoded, FieldReport, FieldValidation, decode, decode_kind, decode_strict, decode_value,
    report_of,
};
pub use normal::{normalise, normalise_type};

use crate::gvk::Resource;

/// What a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    String,
    /// True or false.
    Bool,
    /// A 32-bit whole number.
    I32,
    /// A 64-bit whole number.
    I64,
    /// A number.
    F64,
    /// Bytes, base64 in JSON.
    Bytes,
    /// An RFC 3339 time.
    Time,
    /// A whole number or a text such as `25%`.
    IntOrString,
    /// A resource quantity.
    Quantity,
    /// Anything, kept as it is.
    Any,
    /// An object of the named type.
    Ref(&'static str),
    /// A list.
    List(Box<Kind>),
    /// An object with any keys.
    Map(Box<Kind>),
}

/// How a list is merged by server-side apply (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Distinct scalars.
    Set,
    /// Objects told apart by keys.
    Map,
}

/// One field of a type.
#[derive(Debug, Clone)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// What the value is.
    pub kind: Kind,
    /// Listed as required in OpenAPI.
    pub required: bool,
    /// Absent and empty are different.
    pub pointer: bool,
    /// Written even when empty.
    pub keep: bool,
    /// Name of the Go type where it does not follow from the kind: it is part
    /// of the texts of type errors.
    pub go: Option<&'static str>,
    /// Published default.
    pub default: Option<Value>,
    /// Closed list of values.
    pub values: Option<Value>,
    /// Closed list of values of the items.
    pub item_values: Option<Value>,
    /// List type.
    pub list: Option<ListType>,
    /// A map or object replaced as a whole by apply.
    pub atomic: bool,
    /// Strategic merge patch: the key that tells items apart.
    pub merge_key: Option<&'static str>,
    /// Strategic merge patch: lists are merged rather than replaced.
    pub merge: bool,
    /// Strategic merge patch: keys that the patch does not name are dropped.
    pub retain_keys: bool,
    /// Keys that tell the items of a list map apart.
    pub keys: Vec<&'static str>,
}

/// One type.
#[derive(Debug, Clone)]
pub struct Type {
    /// Short name: `core.v1.Pod`.
    pub name: &'static str,
    /// The fields.
    pub fields: Vec<Field>,
    /// `group/version/kind` of the kinds this type has.
    pub kinds: Vec<&'static str>,
    /// Replaced as a whole by apply.
    pub atomic: bool,
    /// `x-kubernetes-unions` as JSON.
    pub unions: Option<&'static str>,
    /// For types that are no objects: what they are.
    pub is: Option<Kind>,
}

impl Type {
    /// The field of that JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The last part of the name: `Pod`.
    pub fn struct_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Name as OpenAPI publishes it: `io.k8s.api.core.v1.Pod`.
    pub fn full_name(&self) -> String {
        full_name(self.name)
    }
}

/// The OpenAPI name of a short name.
pub fn full_name(short: &str) -> String {
    let foreign = [
        "apimachinery.",
        "apiextensions-apiserver.",
        "kube-aggregator.",
        "metrics.",
    ];
    if foreign.iter().any(|p| short.starts_with(p)) {
        format!("io.k8s.{short}")
    } else {
        format!("io.k8s.api.{short}")
    }
}

struct Table {
    types: Vec<Type>,
    by_name: HashMap<&'static str, usize>,
    by_kind: HashMap<&'static str, usize>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let types = parse::types(include_str!("../data/schema.txt"));
        let mut by_name = HashMap::new();
        let mut by_kind = HashMap::new();
        for (index, one) in types.iter().enumerate() {
            by_name.insert(one.name, index);
            for kind in &one.kinds {
                by_kind.entry(*kind).or_insert(index);
            }
        }
        Table {
            types,
            by_name,
            by_kind,
        }
    })
}

/// Every type of the table.
pub fn types() -> &'static [Type] {
    &table().types
}

/// The type of a short name such as `core.v1.Pod`.
pub fn named(name: &str) -> Option<&'static Type> {
    let table = table();
    table.by_name.get(name).map(|index| &table.types[*index])
}

/// The type of an `apiVersion` and `kind`.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Type> {
    let table = table();
    let key = if api_version.contains('/') {
        format!("{api_version}/{kind}")
    } else {
        format!("/{api_version}/{kind}")
    };
    table
        .by_kind
        .get(key.as_str())
        .map(|index| &table.types[*index])
}

/// The type of a resource's objects.
pub fn type_of(resource: &Resource) -> &'static Type {
    of_kind(&resource.api_version(), resource.kind)
        .expect("every entry of data/resources.json has a type, which a test checks")
}

/// Follows a reference: an object type, or what the value really is.
pub fn resolve(kind: &Kind) -> Resolved<'_> {
    match kind {
        Kind::Ref(name) => match named(name) {
            Some(Type { is: Some(kind), .. }) => Resolved::Plain(kind),
            Some(object) => Resolved::Object(object),
            None => Resolved::Plain(&Kind::Any),
        },
        other => Resolved::Plain(other),
    }
}

/// A kind with its reference followed.
#[derive(Debug, Clone, Copy)]
pub enum Resolved<'a> {
    /// An object with known fields.
    Object(&'static Type),
    /// Anything else.
    Plain(&'a Kind),
}

/// Whether the value holds microseconds (`metav1.MicroTime`).
pub(crate) fn is_micro_time(kind: &Kind) -> bool {
    matches!(kind, Kind::Ref(name) if name.ends_with(".MicroTime"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvk;

    #[test]
    fn every_resource_has_a_type() {
        for resource in gvk::resources() {
            assert!(
                type_of(resource).field("metadata").is_some(),
                "{}",
                resource.plural
            );
            for sub in &resource.subresources {
                if sub.kind.ends_with("Options") {
                    continue;
                }
                let version = gvk::join_group_version(sub.group, sub.version);
                assert!(
                    of_kind(&version, sub.kind).is_some(),
                    "{version} {}",
                    sub.kind
                );
            }
        }
    }

    #[test]
    fn every_reference_resolves() {
        fn check(kind: &Kind) {
            match kind {
                Kind::Ref(name) => assert!(named(name).is_some(), "{name}"),
                Kind::List(item) | Kind::Map(item) => check(item),
                _ => {}
            }
        }
        assert_eq!(types().len(), 587);
        for field in types().iter().flat_map(|t| &t.fields) {
            check(&field.kind);
        }
    }

    #[test]
    fn flags_are_read() {
        let spec = named("core.v1.PodSpec").unwrap();
        let volumes = spec.field("volumes").unwrap();
        assert_eq!(volumes.merge_key, Some("name"));
        assert!(volumes.merge && volumes.retain_keys);
        let ports = named("core.v1.Container").unwrap().field("ports").unwrap();
        assert_eq!(ports.keys, ["containerPort", "protocol"]);
        assert_eq!(ports.list, Some(ListType::Map));
        assert_eq!(full_name(spec.name), "io.k8s.api.core.v1.PodSpec");
    }
}
