//! Reads `data/schema.txt`.

use serde_json::Value;

use super::{Field, Kind, ListType, Type};

/// All types of the table, in its order.
pub(super) fn types(text: &'static str) -> Vec<Type> {
    let mut types: Vec<Type> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix('\t') {
            Some(line) => {
                if let Some(last) = types.last_mut() {
                    last.fields.push(field(line));
                }
            }
            None => types.push(head(line)),
        }
    }
    types
}

fn head(line: &'static str) -> Type {
    let mut words = line.split(' ');
    let mut one = Type {
        name: words.next().unwrap_or_default(),
        fields: Vec::new(),
        kinds: Vec::new(),
        atomic: false,
        unions: None,
        is: None,
    };
    for word in words {
        match word.split_once('=') {
            Some(("gvk", list)) => one.kinds = list.split(',').collect(),
            Some(("map", _)) => one.atomic = true,
            Some(("unions", json)) => one.unions = Some(json),
            Some(("is", text)) => one.is = Some(kind(text)),
            _ => {}
        }
    }
    one
}

fn field(line: &'static str) -> Field {
    let mut words = line.split(' ');
    let mut field = Field {
        name: words.next().unwrap_or_default(),
        kind: kind(words.next().unwrap_or_default()),
        required: false,
        pointer: false,
        keep: false,
        go: None,
        default: None,
        values: None,
        item_values: None,
        list: None,
        atomic: false,
        merge_key: None,
        merge: false,
        retain_keys: false,
        keys: Vec::new(),
    };
    for word in words {
        let (flag, value) = word.split_once('=').unwrap_or((word, ""));
        flag_of(&mut field, flag, value);
    }
    field
}

fn flag_of(field: &mut Field, flag: &str, value: &'static str) {
    let json = || serde_json::from_str::<Value>(value).ok();
    match flag {
        "required" => field.required = true,
        "ptr" => field.pointer = true,
        "keep" => field.keep = true,
        "go" => field.go = Some(value),
        "default" => field.default = json(),
        "enum" => field.values = json(),
        "itemenum" => field.item_values = json(),
        "list" => {
            field.list = match value {
                "atomic" => Some(ListType::Atomic),
                "set" => Some(ListType::Set),
                _ => Some(ListType::Map),
            };
        }
        "map" => field.atomic = true,
        "merge" => field.merge_key = Some(value),
        "strategy" => {
            field.merge = value.split(',').any(|s| s == "merge");
            field.retain_keys = value.split(',').any(|s| s == "retainKeys");
        }
        "keys" => field.keys = value.split(',').collect(),
        _ => {}
    }
}

fn kind(text: &'static str) -> Kind {
    if let Some(item) = text.strip_prefix("[]") {
        return Kind::List(Box::new(kind(item)));
    }
    if let Some(item) = text.strip_prefix("{}") {
        return Kind::Map(Box::new(kind(item)));
    }
    if let Some(name) = text.strip_prefix('@') {
        return Kind::Ref(name);
    }
    match text {
        "s" => Kind::String,
        "b" => Kind::Bool,
        "i32" => Kind::I32,
        "i64" => Kind::I64,
        "f64" => Kind::F64,
        "bytes" => Kind::Bytes,
        "time" => Kind::Time,
        "intstr" => Kind::IntOrString,
        "quantity" => Kind::Quantity,
        _ => Kind::Any,
    }
}
