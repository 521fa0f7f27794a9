//! The head: the two ends of the chain, signed with the node's key.
//!
//! It is one line of JSON whose last member is `signature`: the Ed25519 signature, in base64,
//! of the bytes of the line before `,"signature":`.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::entry::Hash;
use crate::keys::{NodeKeys, PublicKey};

/// Version of the format of head and entries.
const VERSION: u32 = 1;

const SIGNATURE_MEMBER: &str = ",\"signature\":\"";
/// Length of the end of the line, `,"signature":"<88 characters>"}`.
const TAIL: usize = SIGNATURE_MEMBER.len() + 88 + 2;

/// One end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Number of the entry.
    pub seq: u64,
    /// At the beginning the `prev` of the entry, at the end its `hash`.
    pub hash: Hash,
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Version of the format; says also what is signed here.
    berth_audit_head: u32,
    /// The oldest entry that is kept, with the hash of the one before it.
    pub first: End,
    /// The newest entry.
    pub last: End,
    /// When it was signed.
    pub time: String,
    /// Fingerprint of the key that signs.
    pub key: Hash,
}

/// Why a head cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// It cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// It is not there.
    #[error("there is no signed head")]
    Absent,
    /// It is not JSON of this form.
    #[error("the head is not of this format: {0}")]
    Form(String),
    /// Another key signed it.
    #[error("the head is signed with the key {signed}, not with {expected}")]
    OtherKey {
        /// Fingerprint in the head.
        signed: Hash,
        /// Fingerprint of the key to verify with.
        expected: Hash,
    },
    /// It was changed.
    #[error("the signature of the head is wrong")]
    Signature,
}

impl Head {
    /// A head of this moment.
    pub fn new(first: End, last: End, time: String, key: Hash) -> Head {
        Head {
            berth_audit_head: VERSION,
            first,
            last,
            time,
            key,
        }
    }

    /// The signed line, with its line feed.
    pub fn sign(&self, keys: &NodeKeys) -> String {
        let mut line =
            serde_json::to_string(self).expect("a head is numbers and texts, which JSON can hold");
        line.pop();
        let signature = BASE64.encode(keys.sign(line.as_bytes()));
        format!("{line}{SIGNATURE_MEMBER}{signature}\"}}\n")
    }

    /// The head of a signed line.
    ///
    /// # Errors
    /// It is malformed, or not signed with `key`.
    pub fn verify(line: &str, key: &PublicKey) -> Result<Head, HeadError> {
        let (head, signature) = split(line)?;
        let expected = key.fingerprint();
        if head.key != expected {
            let signed = head.key;
            return Err(HeadError::OtherKey { signed, expected });
        }
        let body = &line[..line.trim_end_matches('\n').len() - TAIL];
        match key.verifies(body.as_bytes(), &signature) {
            true => Ok(head),
            false => Err(HeadError::Signature),
        }
    }

    /// The head of a line without regard to its signature: to say what it claims.
    ///
    /// # Errors
    /// It is malformed.
    pub fn claimed(line: &str) -> Result<Head, HeadError> {
        split(line).map(|(head, _)| head)
    }
}

fn split(line: &str) -> Result<(Head, Vec<u8>), HeadError> {
    let malformed = |reason: &str| HeadError::Form(reason.to_owned());
    let line = line.strip_suffix('\n').unwrap_or(line);
    let at = line.len().checked_sub(TAIL);
    let parts = at.and_then(|at| line.split_at_checked(at));
    let (body, tail) = parts.ok_or_else(|| malformed("too short"))?;
    let signature = tail
        .strip_prefix(SIGNATURE_MEMBER)
        .and_then(|rest| rest.strip_suffix("\"}"))
        .ok_or_else(|| malformed("does not end in its signature"))?;
    let signature = BASE64
        .decode(signature)
        .map_err(|error| malformed(&error.to_string()))?;
    let head: Head = serde_json::from_str(&format!("{body}}}"))
        .map_err(|error| malformed(&error.to_string()))?;
    if head.berth_audit_head != VERSION {
        return Err(malformed("another version"));
    }
    Ok((head, signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_a_head_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let keys = NodeKeys::open(dir.path()).unwrap();
        let (first, last) = (
            End {
                seq: 1,
                hash: Hash::ZERO,
            },
            End {
                seq: 9,
                hash: Hash::of(b"x"),
            },
        );
        let head = Head::new(first, last, crate::now(), keys.public().fingerprint());
        let line = head.sign(&keys);
        assert_eq!(Head::verify(&line, keys.public()).unwrap(), head);
        let bytes = line.trim_end().as_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else {
                continue;
            };
            assert!(Head::verify(&changed, keys.public()).is_err(), "byte {at}");
        }
        let other = NodeKeys::open(&dir.path().join("other")).unwrap();
        assert!(matches!(
            Head::verify(&line, other.public()),
            Err(HeadError::OtherKey { .. })
        ));
    }
}
