//! SHA-256 of what is too long or too secret for a record.

use berth_sys::seccomp::Instruction;
use sha2::{Digest, Sha256};

use super::schema::Environment;

/// Digest of a seccomp filter's instructions, as they lie in memory.
pub(super) fn filter(program: &[Instruction]) -> String {
    let mut hash = Sha256::new();
    for one in program {
        hash.update(one.code.to_le_bytes());
        hash.update([one.jt, one.jf]);
        hash.update(one.k.to_le_bytes());
    }
    text(hash)
}

/// Digest of an eBPF program's instructions.
pub(super) fn program(program: &[berth_sys::bpf::Instruction]) -> String {
    let mut hash = Sha256::new();
    for one in program {
        hash.update([one.code, one.registers]);
        hash.update(one.offset.to_le_bytes());
        hash.update(one.immediate.to_le_bytes());
    }
    text(hash)
}

/// What of an environment (entries ended by NUL, as in `/proc/<pid>/environ`) a record may tell.
pub(super) fn environment(bytes: &[u8], salt: &str) -> Environment {
    let entries = bytes.split(|byte| *byte == 0).filter(|e| !e.is_empty());
    let names: Vec<String> = entries
        .map(|entry| {
            let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        })
        .collect();
    let mut hash = Sha256::new();
    hash.update(salt.as_bytes());
    hash.update(bytes);
    Environment {
        count: names.len(),
        names,
        digest: Some(text(hash)),
    }
}

fn text(hash: Sha256) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(71);
    out.push_str("sha256:");
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
