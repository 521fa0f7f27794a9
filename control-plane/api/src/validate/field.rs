//! One fault of one field (`field.Error`), and how faults are printed.

use serde_json::{Value, json};

/// The kind of a fault (`field.ErrorType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The field must be set.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is none of a closed list.
    NotSupported,
    /// The field must not be set or changed.
    Forbidden,
    /// The value occurs twice.
    Duplicate,
    /// A reference names nothing.
    NotFound,
    /// The text is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
}

impl ErrorKind {
    fn text(self) -> &'static str {
        match self {
            ErrorKind::Required => "Required value",
            ErrorKind::Invalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::NotFound => "Not found",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
        }
    }
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Path such as `spec.containers[0].image`.
    pub path: String,
    /// What is wrong.
    pub kind: ErrorKind,
    /// The rule, when the kind does not say it all.
    pub detail: String,
    /// The offending value, where it is shown.
    pub bad_value: Option<Value>,
}

impl FieldError {
    fn new(kind: ErrorKind, path: impl Into<String>, detail: impl Into<String>) -> Self {
        FieldError {
            path: path.into(),
            kind,
            detail: detail.into(),
            bad_value: None,
        }
    }

    fn with(mut self, value: impl Into<Value>) -> Self {
        self.bad_value = Some(value.into());
        self
    }

    /// The field must be set.
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, detail)
    }

    /// The value breaks the rule `detail`.
    pub fn invalid(
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        Self::new(ErrorKind::Invalid, path, detail).with(value)
    }

    /// The value is none of `supported`.
    pub fn not_supported(
        path: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(ErrorKind::NotSupported, path, detail).with(value)
    }

    /// The field must not be set or changed.
    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, detail)
    }

    /// The value occurs twice.
    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::Duplicate, path, "").with(value)
    }

    /// The value refers to something that does not exist.
    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(ErrorKind::NotFound, path, "").with(value)
    }

    /// The text has more than `limit` bytes.
    pub fn too_long(path: impl Into<String>, limit: usize) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self::new(
            ErrorKind::TooLong,
            path,
            format!("may not be more than {limit} {unit}"),
        )
    }

    /// The list has `actual` items, more than `limit`.
    pub fn too_many(path: impl Into<String>, actual: usize, limit: usize) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        Self::new(
            ErrorKind::TooMany,
            path,
            format!("must have at most {limit} {unit}"),
        )
        .with(actual)
    }

    /// The text without the path.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        match &self.bad_value {
            Some(Value::String(value)) => text.push_str(&format!(": {}", quote(value))),
            Some(value) => text.push_str(&format!(": {value}")),
            None => {}
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The entry of `details.causes` in a Status.
    pub fn to_cause(&self) -> Value {
        json!({ "reason": self.kind.reason(), "message": self.body(), "field": self.path })
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// All faults in one text: one as it is, several in brackets, repeats once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.len() {
        1 => texts.remove(0),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// A text in double quotes with the escapes that Go's `%q` uses.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let required = FieldError::required("spec.containers[0].image", "");
        assert_eq!(
            required.to_string(),
            "spec.containers[0].image: Required value"
        );
        let unsupported = FieldError::not_supported("a", "x", &["P", "Q"]);
        assert_eq!(
            unsupported.to_string(),
            "a: Unsupported value: \"x\": supported values: \"P\", \"Q\""
        );
        let invalid = FieldError::invalid("b", -1, "must be greater than or equal to 0");
        assert_eq!(
            aggregate(&[required.clone(), invalid.clone(), required.clone()]),
            format!("[{required}, {invalid}]")
        );
        assert_eq!(
            aggregate(std::slice::from_ref(&required)),
            required.to_string()
        );
        assert_eq!(
            FieldError::too_long("c", 63).to_string(),
            "c: Too long: may not be more than 63 bytes"
        );
        assert_eq!(
            FieldError::invalid("d", serde_json::json!({"a": "b"}), "x").to_string(),
            "d: Invalid value: {\"a\":\"b\"}: x"
        );
    }
}
