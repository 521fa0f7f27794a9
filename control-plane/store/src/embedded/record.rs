//! How an entry lies on disk: four little-endian u64 (created, modified, expires as Unix
//! seconds or 0, reserved 0), then the value.

use bytes::Bytes;

use crate::store::Revision;

const HEADER: usize = 32;

/// One stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub created: Revision,
    pub modified: Revision,
    /// Unix seconds after which the key is deleted; 0 means never.
    pub expires: u64,
    pub value: Bytes,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.value.len());
        for number in [self.created, self.modified, self.expires, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.value);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, value) = bytes.split_at_checked(HEADER)?;
        let number = |at: usize| {
            let slice = header.get(at * 8..at * 8 + 8)?;
            Some(u64::from_le_bytes(slice.try_into().ok()?))
        };
        Some(Self {
            created: number(0)?,
            modified: number(1)?,
            expires: number(2)?,
            value: Bytes::copy_from_slice(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_encoding_and_a_short_one_is_refused() {
        let record = Record {
            created: 1,
            modified: 2,
            expires: 3,
            value: Bytes::from_static(b"{}"),
        };
        assert_eq!(Record::decode(&record.encode()), Some(record));
        assert_eq!(Record::decode(&[0; 31]), None);
    }
}
