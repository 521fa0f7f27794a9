//! An object against its type: unknown fields, and the first value of a wrong
//! type in the words of Go's decoder, which clients and books quote.

use serde_json::Value;

use super::{Field, Kind, Resolved, Type, body, named, normal, of_kind, resolve, type_of};
use crate::gvk::Resource;
use crate::quantity::Quantity;
use crate::status::{self, Status};

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and answer with warnings.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; empty means the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(FieldValidation::Warn),
            "Ignore" => Some(FieldValidation::Ignore),
            "Strict" => Some(FieldValidation::Strict),
            _ => None,
        }
    }
}

/// What comparing an object with its type found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldReport {
    /// Paths of fields that the type does not have.
    pub unknown: Vec<String>,
    /// Paths of fields given twice.
    pub duplicates: Vec<String>,
    /// The first value of a wrong type, in the server's words.
    pub type_error: Option<String>,
}

impl FieldReport {
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub fn strict_faults(&self) -> Vec<String> {
        let unknown = self
            .unknown
            .iter()
            .map(|p| format!("unknown field \"{p}\""));
        let twice = self
            .duplicates
            .iter()
            .map(|p| format!("duplicate field \"{p}\""));
        unknown.chain(twice).collect()
    }

    /// The fault that refuses the object under `validation`, if any.
    pub fn refusal(&self, validation: FieldValidation) -> Option<String> {
        if let Some(error) = &self.type_error {
            return Some(error.clone());
        }
        let faults = self.strict_faults();
        (validation == FieldValidation::Strict && !faults.is_empty())
            .then(|| format!("strict decoding error: {}", faults.join(", ")))
    }
}

/// A decoded object in stored form, and warnings for the client.
pub type Decoded = (Value, Vec<String>);

/// Compares an object with the type of its kind.
pub fn decode_strict(resource: &Resource, object: &Value) -> FieldReport {
    report_of(type_of(resource), object)
}

/// Compares an object with any type.
pub fn report_of(of: &'static Type, object: &Value) -> FieldReport {
    let mut walk = Walk::default();
    walk.object(
        of,
        object,
        &mut At {
            struct_name: "",
            path: String::new(),
            fields: Vec::new(),
        },
    );
    walk.report
}

/// Body → object of `resource`'s kind in stored form, with warnings. A missing
/// `apiVersion` or `kind` is filled in; another is refused.
pub fn decode(
    resource: &Resource,
    bytes: &[u8],
    content_type: &str,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    decode_kind(
        &resource.api_version(),
        resource.kind,
        bytes,
        content_type,
        validation,
    )
}

/// The same for a kind that is no stored resource: `v1` `Binding`, `policy/v1`
/// `Eviction`, `autoscaling/v1` `Scale`, `meta.k8s.io/v1` `DeleteOptions`.
pub fn decode_kind(
    api_version: &str,
    kind: &str,
    bytes: &[u8],
    content_type: &str,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let (mut object, duplicates) = body::decode_body(bytes, content_type).map_err(|e| {
        status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {e} ({})",
            summary(bytes)
        ))
    })?;
    check_kind(&mut object, api_version, kind)?;
    let of = of_kind(api_version, kind)
        .or_else(|| named(&format!("apimachinery.pkg.apis.meta.v1.{kind}")))
        .ok_or_else(|| status::internal(format!("no type for {api_version} {kind}")))?;
    let mut report = report_of(of, &object);
    report.duplicates = duplicates;
    if let Some(fault) = report.refusal(validation) {
        return Err(unhandled(kind, api_version, kind, &fault));
    }
    normal::normalise_type(of, &mut object);
    let warnings = match validation {
        FieldValidation::Warn => report.strict_faults(),
        _ => Vec::new(),
    };
    Ok((object, warnings))
}

/// A patched object → stored form, with warnings; the error is the fault's text,
/// for the caller to say what was patched.
pub fn decode_value(
    resource: &Resource,
    mut object: Value,
    validation: FieldValidation,
) -> Result<Decoded, String> {
    let report = decode_strict(resource, &object);
    if let Some(fault) = report.refusal(validation) {
        return Err(fault);
    }
    normal::normalise(resource, &mut object);
    let warnings = match validation {
        FieldValidation::Warn => report.strict_faults(),
        _ => Vec::new(),
    };
    Ok((object, warnings))
}

fn check_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let Value::Object(map) = object else {
        let fault = format!(
            "json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            json_name(object)
        );
        return Err(status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {fault}"
        )));
    };
    let given = |name: &str| {
        map.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (given_version, given_kind) = (given("apiVersion"), given("kind"));
    if given_kind.is_empty() {
        map.insert("kind".into(), kind.into());
    }
    if given_version.is_empty() {
        map.insert("apiVersion".into(), api_version.into());
    }
    if kind == "DeleteOptions" && (given_kind.is_empty() || given_kind == kind) {
        return Ok(()); // every group version has its own alias of it
    }
    let known = of_kind(&given_version, &given_kind).is_some();
    let same_version = given_version.is_empty() || given_version == api_version;
    if !same_version && (known || given_kind == kind || given_kind.is_empty()) {
        return Err(status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        let fault = if known {
            format!("converting (v1.{given_kind}) to (v1.{kind}): unknown conversion")
        } else {
            format!("no kind \"{given_kind}\" is registered for version \"{given_version}\"")
        };
        return Err(unhandled(&given_kind, &given_version, kind, &fault));
    }
    Ok(())
}

fn unhandled(given: &str, api_version: &str, kind: &str, fault: &str) -> Status {
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    status::bad_request(format!(
        "{given} in version \"{version}\" cannot be handled as a {kind}: {fault}"
    ))
}

/// The start of a body, for the text of an error.
fn summary(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(30)];
    let more = if bytes.len() > 30 { " ..." } else { "" };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => {
            let hex: String = shown.iter().map(|b| format!("{b:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}

/// Where the walk is: the innermost object's type, the path with indexes (for
/// unknown fields) and without (as Go's decoder tells it).
struct At {
    struct_name: &'static str,
    path: String,
    fields: Vec<&'static str>,
}

#[derive(Default)]
struct Walk {
    report: FieldReport,
}

impl Walk {
    fn object(&mut self, of: &'static Type, value: &Value, at: &mut At) {
        let Value::Object(map) = value else {
            if !value.is_null() {
                self.mismatch(value, &go_ref(of.name), at);
            }
            return;
        };
        let outer = at.struct_name;
        let length = at.path.len();
        for (name, value) in map {
            at.path.truncate(length);
            if !at.path.is_empty() {
                at.path.push('.');
            }
            at.path.push_str(name);
            let Some(field) = of.field(name) else {
                self.report.unknown.push(at.path.clone());
                continue;
            };
            at.struct_name = of.struct_name();
            at.fields.push(field.name);
            self.value(&field.kind, field.go, value, at);
            at.fields.pop();
        }
        at.path.truncate(length);
        at.struct_name = outer;
    }

    fn value(&mut self, kind: &Kind, go: Option<&str>, value: &Value, at: &mut At) {
        if value.is_null() {
            return;
        }
        let plain = match resolve(kind) {
            Resolved::Object(of) => return self.object(of, value, at),
            Resolved::Plain(plain) => plain,
        };
        match (plain, value) {
            (Kind::List(item), Value::Array(list)) => {
                let length = at.path.len();
                for (index, value) in list.iter().enumerate() {
                    at.path.push_str(&format!("[{index}]"));
                    self.value(item, go.and_then(|g| g.strip_prefix("[]")), value, at);
                    at.path.truncate(length);
                }
            }
            (Kind::Map(item), Value::Object(map)) => {
                let length = at.path.len();
                for (key, value) in map {
                    at.path.push_str(&format!(".{key}"));
                    self.value(item, go.and_then(map_item), value, at);
                    at.path.truncate(length);
                }
            }
            (Kind::I32, Value::Number(n))
                if n.as_i64().is_none_or(|n| i32::try_from(n).is_err()) =>
            {
                self.mismatch_text(&format!("number {n}"), go.unwrap_or("int32"), at);
            }
            (Kind::I64, Value::Number(n)) if n.as_i64().is_none() => {
                self.mismatch_text(&format!("number {n}"), go.unwrap_or("int64"), at);
            }
            (Kind::Bytes, Value::String(text)) => {
                if let Some(offset) = base64_fault(text) {
                    self.fault(format!("illegal base64 data at input byte {offset}"));
                }
            }
            _ => self.scalar(plain, kind, go, value, at),
        }
    }

    fn scalar(&mut self, plain: &Kind, kind: &Kind, go: Option<&str>, value: &Value, at: &At) {
        let fits = match plain {
            Kind::Any => true,
            Kind::String => value.is_string(),
            Kind::Bool => value.is_boolean(),
            Kind::I32 | Kind::I64 | Kind::F64 => value.is_number(),
            Kind::IntOrString => value.is_string() || value.as_i64().is_some(),
            Kind::Quantity => {
                if let Err(error) = Quantity::from_value(value) {
                    self.fault(error.to_string());
                }
                true
            }
            Kind::Time => match value.as_str() {
                Some(text) if crate::meta::parse_time(text).is_none() => {
                    self.fault(format!(
                        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
                    ));
                    true
                }
                text => text.is_some(),
            },
            _ => false,
        };
        if fits {
            return;
        }
        match plain {
            Kind::IntOrString => {
                self.fault(format!(
                    "json: cannot unmarshal {} into Go value of type int32",
                    json_name(value)
                ));
            }
            Kind::Time => {
                self.fault(format!(
                    "json: cannot unmarshal {} into Go value of type string",
                    json_name(value)
                ));
            }
            _ => {
                let derived = go_type(kind);
                self.mismatch(value, go.unwrap_or(&derived), at);
            }
        }
    }

    fn mismatch(&mut self, value: &Value, go: &str, at: &At) {
        self.mismatch_text(json_name(value), go, at);
    }

    fn mismatch_text(&mut self, found: &str, go: &str, at: &At) {
        self.fault(if at.fields.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {go}")
        } else {
            format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {go}",
                at.struct_name,
                at.fields.join(".")
            )
        });
    }

    /// Only the first fault is told, as the decoder does.
    fn fault(&mut self, text: String) {
        self.report.type_error.get_or_insert(text);
    }
}

/// The value type of a Go map type.
fn map_item(go: &str) -> Option<&str> {
    go.strip_prefix("map[")
        .and_then(|rest| rest.split_once(']'))
        .map(|(_, item)| item)
}

fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(kind: &Kind) -> String {
    match kind {
        Kind::String | Kind::Time => "string".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::I32 | Kind::IntOrString => "int32".to_owned(),
        Kind::I64 => "int64".to_owned(),
        Kind::F64 => "float64".to_owned(),
        Kind::Bytes => "[]uint8".to_owned(),
        Kind::Quantity => "resource.Quantity".to_owned(),
        Kind::Any => "interface {}".to_owned(),
        Kind::Ref(name) => go_ref(name),
        Kind::List(item) => format!("[]{}", go_type(item)),
        Kind::Map(item) => format!("map[string]{}", go_type(item)),
    }
}

/// `v1.Pod` for `core.v1.Pod`.
fn go_ref(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let last = parts.next().unwrap_or_default();
    format!("{}.{last}", parts.next().unwrap_or_default())
}

/// The offset of the first byte that makes a text no standard base64.
fn base64_fault(text: &str) -> Option<usize> {
    use base64::Engine;
    let clean: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
    match base64::engine::general_purpose::STANDARD.decode(&clean) {
        Ok(_) => None,
        Err(base64::DecodeError::InvalidByte(offset, _))
        | Err(base64::DecodeError::InvalidLastSymbol(offset, _)) => Some(offset),
        Err(_) => Some(clean.trim_end_matches('=').len() / 4 * 4),
    }
}

/// The kind of a field, for callers that walk objects along with their types.
impl Field {
    /// The object type this field or its items have, if they are objects.
    pub fn object_type(&self) -> Option<&'static Type> {
        let kind = match &self.kind {
            Kind::List(item) | Kind::Map(item) => item,
            kind => kind,
        };
        match resolve(kind) {
            Resolved::Object(of) => Some(of),
            Resolved::Plain(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
