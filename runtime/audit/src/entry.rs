//! One entry of the log, and the line it is stored as.
//!
//! A line is a JSON object whose last member is `hash`: the SHA-256 of the bytes of the line
//! before `,"hash":`. These contain `prev`, the hash of the entry before, so every hash stands
//! for the whole chain up to it, and what is hashed are the bytes as they are stored: there is
//! no second form that could differ.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Longest line that is written or read, in bytes: a record of 64 mounts takes about 30 KiB.
pub const LONGEST_LINE: usize = 4 * 1024 * 1024;

const HASH_MEMBER: &[u8] = b",\"hash\":\"";
/// Length of the end of every line, `,"hash":"<64 digits>"}`.
const TAIL: usize = HASH_MEMBER.len() + 64 + 2;

/// A SHA-256 digest, written as 64 small hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first entry of a log has as its predecessor.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Hash {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Hash(hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Hash, Self::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash).map_err(|_| "not 64 hexadecimal digits")?;
        // One form only: capital digits would be another text of the same hash.
        if text.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return Err("capital hexadecimal digits");
        }
        Ok(Hash(hash))
    }
}

/// What an entry tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A container was started.
    Start,
    /// A process was executed in a container.
    Exec,
    /// The limits of a container were changed.
    Update,
    /// An image was pulled.
    Pull,
    /// The log itself: opened, repaired.
    Log,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Start => "start",
            Kind::Exec => "exec",
            Kind::Update => "update",
            Kind::Pull => "pull",
            Kind::Log => "log",
        })
    }
}

/// Of whom an entry tells. What does not apply is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Namespace of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// UID of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    /// Name of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Identifier of the container.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The image, by digest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Who asked for it: credentials of the peer of the CRI socket.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// Where it came from: the reference an image was pulled by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// What was executed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// What is to be appended.
#[derive(Debug, Clone)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// To whom.
    pub subject: Subject,
    /// What is known of it; for a start or exec the sandbox record of the monitor.
    pub record: Option<Box<RawValue>>,
}

/// One entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// 1, 2, 3 … over the life of the log.
    pub seq: u64,
    /// When it was appended: RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// What happened.
    pub kind: Kind,
    /// To whom.
    pub subject: Subject,
    /// What is known of it; null where nothing is.
    pub record: Option<Box<RawValue>>,
    /// Hash of the entry before; zeros in the first.
    pub prev: Hash,
    /// Hash of this entry.
    pub hash: Hash,
}

/// Why a line is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It is not JSON of this form.
    #[error("not an entry of this format: {0}")]
    Form(String),
    /// It was changed.
    #[error("its hash is not that of its content")]
    Hash,
    /// The record does not fit.
    #[error("the record is {0} bytes long, at most {LONGEST_LINE} are kept")]
    TooLong(usize),
}

#[derive(Serialize)]
struct Body<'a> {
    seq: u64,
    time: &'a str,
    kind: Kind,
    subject: &'a Subject,
    record: &'a Option<Box<RawValue>>,
    prev: Hash,
}

/// The line of an entry, with its line feed, and the entry's hash.
pub fn seal(
    event: &Event,
    seq: u64,
    time: &str,
    prev: Hash,
) -> Result<(Vec<u8>, Hash), EntryError> {
    let record = one_line(event.record.as_deref())?;
    let body = Body {
        seq,
        time,
        kind: event.kind,
        subject: &event.subject,
        record: &record,
        prev,
    };
    let mut line =
        serde_json::to_vec(&body).map_err(|error| EntryError::Form(error.to_string()))?;
    // The closing brace comes after the hash.
    line.pop();
    let hash = Hash::of(&line);
    line.extend_from_slice(HASH_MEMBER);
    line.extend_from_slice(hash.to_string().as_bytes());
    line.extend_from_slice(b"\"}\n");
    if line.len() > LONGEST_LINE {
        return Err(EntryError::TooLong(line.len()));
    }
    Ok((line, hash))
}

/// A record without line feeds, which JSON allows between its tokens.
fn one_line(record: Option<&RawValue>) -> Result<Option<Box<RawValue>>, EntryError> {
    let Some(record) = record else {
        return Ok(None);
    };
    let text = record.get();
    if !text.contains(['\n', '\r']) {
        return Ok(Some(record.to_owned()));
    }
    let form = |error: serde_json::Error| EntryError::Form(error.to_string());
    let value: serde_json::Value = serde_json::from_str(text).map_err(form)?;
    serde_json::value::to_raw_value(&value)
        .map(Some)
        .map_err(form)
}

/// The entry of a line without its line feed, whose hash is right.
pub fn parse(line: &[u8]) -> Result<Entry, EntryError> {
    let malformed = |reason: &str| EntryError::Form(reason.to_owned());
    let split = line
        .len()
        .checked_sub(TAIL)
        .ok_or_else(|| malformed("too short"))?;
    let (body, tail) = line.split_at(split);
    if !tail.starts_with(HASH_MEMBER) || !tail.ends_with(b"\"}") {
        return Err(malformed("does not end in its hash"));
    }
    let entry: Entry =
        serde_json::from_slice(line).map_err(|error| EntryError::Form(error.to_string()))?;
    if Hash::of(body) != entry.hash {
        return Err(EntryError::Hash);
    }
    Ok(entry)
}

/// Now, as entries and heads tell it.
pub fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

/// The time that an age (`90s`, `10m`, `2h`, `7d`) or an RFC 3339 time means, written as entries
/// tell it, so that both compare as texts; None for anything else.
pub fn since(text: &str) -> Option<String> {
    let told = |time: chrono::DateTime<chrono::Utc>| {
        time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
    };
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(told(time.to_utc()));
    }
    let seconds = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: i64 = text[..text.len() - 1]
        .parse()
        .ok()
        .filter(|count| *count >= 0)?;
    let age = chrono::TimeDelta::try_seconds(count.checked_mul(seconds)?)?;
    chrono::Utc::now().checked_sub_signed(age).map(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn event() -> Event {
        Event {
            kind: Kind::Start,
            subject: Subject {
                namespace: "default".to_owned(),
                pod: "web".to_owned(),
                container: "nginx".to_owned(),
                container_id: "c1".to_owned(),
                image: "registry/nginx@sha256:00".to_owned(),
                who: "uid 0, pid 7, berth".to_owned(),
                ..Subject::default()
            },
            record: Some(RawValue::from_string("{\"verdict\": \"match\"}".to_owned()).unwrap()),
        }
    }

    #[test]
    fn an_entry_is_this_line() {
        let (line, hash) = seal(&event(), 2, "2026-01-02T03:04:05.000000006Z", Hash::ZERO).unwrap();
        expect![[r#"
            {"seq":2,"time":"2026-01-02T03:04:05.000000006Z","kind":"start","subject":{"namespace":"default","pod":"web","container":"nginx","container_id":"c1","image":"registry/nginx@sha256:00","who":"uid 0, pid 7, berth"},"record":{"verdict": "match"},"prev":"0000000000000000000000000000000000000000000000000000000000000000","hash":"293c8c127f7bc913f3da0c3951d345d184e85fe6b6e3fd0b7bcb970fd0c6a78c"}
        "#]]
        .assert_eq(std::str::from_utf8(&line).unwrap());
        let entry = parse(line.trim_ascii_end()).unwrap();
        assert_eq!((entry.seq, entry.hash), (2, hash));
        assert_eq!(entry.record.unwrap().get(), "{\"verdict\": \"match\"}");
    }

    #[test]
    fn every_changed_byte_is_found() {
        let (line, _) = seal(&event(), 1, &now(), Hash::ZERO).unwrap();
        let line = line.trim_ascii_end();
        for at in 0..line.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut changed = line.to_vec();
                changed[at] ^= flip;
                assert!(parse(&changed).is_err(), "byte {at}");
            }
            let mut shorter = line.to_vec();
            shorter.remove(at);
            // Of two equal bytes next to each other it makes no difference which goes.
            assert!(parse(&shorter).is_err(), "without byte {at}");
        }
    }

    #[test]
    fn a_record_of_several_lines_becomes_one() {
        let mut event = event();
        event.record = Some(RawValue::from_string("{\n  \"a\": \"x\\ny\"\n}".to_owned()).unwrap());
        let (line, _) = seal(&event, 1, &now(), Hash::ZERO).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let entry = parse(line.trim_ascii_end()).unwrap();
        assert_eq!(entry.record.unwrap().get(), r#"{"a":"x\ny"}"#);
    }

    #[test]
    fn ages_and_times_are_times() {
        let time = since("2026-01-02T03:04:05+01:00").unwrap();
        assert_eq!(time, "2026-01-02T02:04:05.000000000Z");
        assert!(since("2h").unwrap() < since("90s").unwrap());
        for text in ["", "h", "-1h", "5", "1y", "99999999999999999d", "ü"] {
            assert_eq!(since(text), None, "{text}");
        }
    }

    #[test]
    fn an_event_without_a_record_has_null() {
        let mut event = event();
        event.record = None;
        let (line, _) = seal(&event, 1, &now(), Hash::ZERO).unwrap();
        assert!(parse(line.trim_ascii_end()).unwrap().record.is_none());
    }
}
