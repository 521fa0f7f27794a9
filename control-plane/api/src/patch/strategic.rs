//! Strategic merge patch: a merge patch in which lists of objects merge by the
//! merge key of their field, with the directives `$patch`, `$retainKeys`,
//! `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>`.

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{arrange, position};
use crate::schema::{Field, Resolved, Type, resolve};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_LIST: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Applies a strategic merge patch to an object of type `of`.
pub fn strategic_merge(
    of: &'static Type,
    original: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".to_owned()));
    };
    merge_object(Some(of), original.clone(), patch.clone()).map(Value::Object)
}

type Object = Map<String, Value>;

fn merge_object(
    of: Option<&'static Type>,
    mut original: Object,
    mut patch: Object,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&directive)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_order(of, &mut original, &mut patch)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_LIST) {
            Some(list) => delete_from_list(&mut original, list, &value)?,
            None => merge_field(of, &mut original, key, value)?,
        }
    }
    Ok(original)
}

fn merge_field(
    of: Option<&'static Type>,
    original: &mut Object,
    key: String,
    value: Value,
) -> Result<(), PatchError> {
    if value.is_null() {
        original.remove(&key);
        return Ok(());
    }
    let field = of.and_then(|t| t.field(&key));
    match (original.remove(&key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let of = field.and_then(|f| match resolve(&f.kind) {
                Resolved::Object(of) => Some(of),
                Resolved::Plain(_) => None,
            });
            original.insert(key, Value::Object(merge_object(of, old, new)?));
        }
        (Some(Value::Array(old)), Value::Array(new)) if field.is_some_and(|f| f.merge) => {
            let merged = merge_list(field, old, new)?;
            original.insert(key, Value::Array(merged));
        }
        (Some(Value::Array(_)), Value::Array(new)) => {
            original.insert(key, Value::Array(new));
        }
        (_, mut new) => {
            drop_nulls(&mut new);
            if let Some(new) = without_directives(new) {
                original.insert(key, new);
            }
        }
    }
    Ok(())
}

fn merge_list(
    field: Option<&Field>,
    old: Vec<Value>,
    new: Vec<Value>,
) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    let objects = old.iter().chain(&new).next().is_some_and(Value::is_object);
    if old.iter().chain(&new).any(Value::is_array) {
        return Err(PatchError::Unfit(
            "lists of lists are not supported".to_owned(),
        ));
    }
    if old.iter().chain(&new).any(|v| v.is_object() != objects) {
        return Err(PatchError::Unmergeable(
            "list element types are not identical".to_owned(),
        ));
    }
    if !objects {
        let mut merged: Vec<Value> = Vec::new();
        for item in old.iter().chain(&new) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(arrange(merged, &new, &old, None));
    }
    let Some((field, key)) = field.and_then(|f| f.merge_key.map(|key| (f, key))) else {
        let name = field.map(|f| f.name).unwrap_or_default();
        return Err(PatchError::Unmergeable(format!(
            "cannot merge lists without merge key for {name}"
        )));
    };
    let (old, new) = special_items(old, new, key)?;
    let mut merged = old.clone();
    for item in &new {
        if item.get(key).is_none() {
            return Err(no_merge_key(item, key));
        }
        match (position(&merged, item, Some(key)), item) {
            (Some(at), Value::Object(item)) => {
                let before = std::mem::take(&mut merged[at]);
                let Value::Object(before) = before else {
                    return Err(PatchError::Unmergeable(format!(
                        "value for key {at} is not a map"
                    )));
                };
                let after = merge_object(field.object_type(), before, item.clone())?;
                merged[at] = Value::Object(after);
            }
            _ => merged.push(item.clone()),
        }
    }
    Ok(arrange(merged, &new, &old, Some(key)))
}

/// Carries out `$patch: delete` and `$patch: replace` items of a list.
fn special_items(
    mut old: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let id = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                old.retain(|other| other.get(key) != Some(id));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(PatchError::Unmergeable(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => return Err(unknown_directive(directive)),
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    Ok((old, plain))
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN) else {
        return Ok(());
    };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let keys = keys.as_array().ok_or_else(malformed)?;
    let keep = |name: &str| keys.iter().any(|k| k.as_str() == Some(name));
    let directive = |name: &str| name.starts_with(DELETE_LIST) || name.starts_with(SET_ORDER);
    if patch
        .iter()
        .any(|(name, value)| !value.is_null() && !directive(name) && !keep(name))
    {
        return Err(malformed());
    }
    original.retain(|name, _| keep(name));
    Ok(())
}

fn set_element_order(
    of: Option<&'static Type>,
    original: &mut Object,
    patch: &mut Object,
) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let malformed =
            || PatchError::Malformed("invalid patch format of setElementOrder list".to_owned());
        let order = patch.remove(&directive);
        let order = order
            .as_ref()
            .and_then(Value::as_array)
            .ok_or_else(malformed)?;
        let name = &directive[SET_ORDER.len()..];
        let field = of.and_then(|t| t.field(name));
        let key = field.and_then(|f| f.merge_key);
        let list = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(malformed()),
        };
        let old = list(original.remove(name))?;
        let new = list(patch.remove(name))?;
        check_order(new.as_deref().unwrap_or_default(), order, key)?;
        let server = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => match without_directives(Value::Array(new)) {
                Some(Value::Array(new)) => new,
                _ => continue,
            },
            (Some(old), Some(new)) if field.is_some_and(|f| f.merge) => {
                merge_list(field, old, new)?
            }
            (Some(_), Some(new)) => new,
        };
        let arranged = arrange(merged, order, &server, key);
        original.insert(name.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

/// The patch's items must occur in the order list, in its order.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order;
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        match position(rest, item, key) {
            Some(at) => rest = &rest[at + 1..],
            None => {
                return Err(PatchError::Unmergeable(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    Value::from(patch),
                    Value::from(order)
                )));
            }
        }
    }
    Ok(())
}

fn delete_from_list(original: &mut Object, name: &str, gone: &Value) -> Result<(), PatchError> {
    let gone = gone.as_array().ok_or_else(|| {
        PatchError::Malformed("invalid patch format of primitive list".to_owned())
    })?;
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// What a new value leaves when there was nothing to direct; `None` when it was
/// itself a directive. The parallel-list directives mean nothing here either.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter()
                .filter(|(k, _)| {
                    k != RETAIN && !k.starts_with(SET_ORDER) && !k.starts_with(DELETE_LIST)
                })
                .filter_map(|(k, v)| without_directives(v).map(|v| (k, v)))
                .collect(),
        )),
        Value::Array(list) => Some(Value::Array(
            list.into_iter().filter_map(without_directives).collect(),
        )),
        other => Some(other),
    }
}

fn unknown_directive(directive: &Value) -> PatchError {
    let text = directive
        .as_str()
        .map_or_else(|| directive.to_string(), str::to_owned);
    PatchError::Unmergeable(format!("unknown patch type: {text}"))
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Unmergeable(format!(
        "map: {item} does not contain declared merge key: {key}"
    ))
}

#[cfg(test)]
mod tests;
