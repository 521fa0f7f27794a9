//! The environment in a record: its digest becomes an HMAC, so that nobody who reads the log
//! can find a short secret by trying.

use serde_json::value::RawValue;

use crate::keys::NodeKeys;

/// How the member that holds a digest begins in a record, which is written without spaces. A
/// quote inside of a text is escaped, so that nothing else can look like this.
const BEGIN: &str = "\"environment\":\"";

/// The record with every digest of an environment replaced by its HMAC under the node's key;
/// all else stays byte for byte.
///
/// # Errors
/// The record is not JSON.
pub fn hide_environment(
    record: Box<RawValue>,
    keys: &NodeKeys,
) -> Result<Box<RawValue>, serde_json::Error> {
    if !record.get().contains(BEGIN) {
        return Ok(record);
    }
    let mut hidden = String::with_capacity(record.get().len() + 64);
    let mut left = record.get();
    while let Some((before, after)) = left.split_once(BEGIN) {
        let (digest, rest) = after.split_once('"').unwrap_or((after, ""));
        let hmac = keys.hide(digest.as_bytes());
        hidden.extend([before, BEGIN, "hmac-sha256:", &hmac, "\""]);
        left = rest;
    }
    hidden.push_str(left);
    RawValue::from_string(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_hidden_and_equal_ones_stay_equal() {
        let dir = tempfile::tempdir().unwrap();
        let keys = NodeKeys::open(dir.path()).unwrap();
        let text = r#"{"fields":{"environment":{"requested":{"environment":"sha256:aa"},"applied":{"environment":"sha256:aa"}},"cwd":"/\"environment\":\"x"}}"#;
        let record = RawValue::from_string(text.to_owned()).unwrap();
        let hidden = hide_environment(record, &keys).unwrap();
        let hmac = format!("hmac-sha256:{}", keys.hide(b"sha256:aa"));
        assert_eq!(hidden.get(), text.replace("sha256:aa", &hmac));
        let plain = RawValue::from_string("{ }".to_owned()).unwrap();
        assert_eq!(hide_environment(plain, &keys).unwrap().get(), "{ }");
    }
}
