//! The order of a merged list: what the patch orders comes in its order, what
//! only the server has stays where it was relative to the rest.

use serde_json::Value;

/// What tells items apart: the merge key of an object, or the scalar itself.
pub(super) fn identity<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        Some(key) => item.get(key),
        None => Some(item),
    }
}

/// Position of the item with the same identity.
pub(super) fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    let wanted = identity(item, key)?;
    list.iter()
        .position(|other| identity(other, key) == Some(wanted))
}

/// Sorts `merged` by `order` (which also decides what counts as the patch's)
/// and weaves in the rest in the `server`'s order.
pub(super) fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Vec<Value> {
    let (mut ordered, mut rest): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(order, item, key).is_some());
    ordered.sort_by_key(|item| position(order, item, key).unwrap_or(usize::MAX));
    rest.sort_by_key(|item| position(server, item, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(ordered.len() + rest.len());
    let mut rest = rest.into_iter().peekable();
    for item in ordered {
        let here = position(server, &item, key);
        while let Some(other) = rest.peek() {
            let there = position(server, other, key);
            match (there, here) {
                (Some(there), Some(here)) if there < here => out.extend(rest.next()),
                _ => break,
            }
        }
        out.push(item);
    }
    out.extend(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(text: &str) -> Vec<Value> {
        text.chars().map(|c| json!(c.to_string())).collect()
    }

    #[test]
    fn arranges() {
        for (merged, order, server, out) in [
            ("abc", "cb", "abc", "acb"),
            ("abcx", "x", "abc", "xabc"),
            ("ab", "", "ab", "ab"),
            ("abc", "ba", "abc", "bac"),
            ("abcd", "da", "abcd", "bcda"),
        ] {
            assert_eq!(
                arrange(list(merged), &list(order), &list(server), None),
                list(out),
                "{merged} {order}"
            );
        }
    }
}
