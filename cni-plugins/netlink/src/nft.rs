//! nftables: rulesets are applied, and sets listed, by the `nft` program, whose
//! text is the documented interface (nft(8)). One call is one transaction.

use std::io::Write;
use std::process::{Command, Stdio};

/// A ruleset that was not applied; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there or did not start.
    #[error("cannot run `nft` (package nftables)")]
    Start(#[source] std::io::Error),
    /// It refused the ruleset.
    #[error("nft refused to {step}: {reason}")]
    Refused {
        /// What the ruleset was for.
        step: String,
        /// What it printed.
        reason: String,
    },
}

/// Applies a ruleset as one transaction.
///
/// # Errors
/// [`NftError`]; the rules are then as before.
pub fn apply(step: &str, ruleset: &str) -> Result<(), NftError> {
    run(step, &["-f", "-"], ruleset).map(drop)
}

/// Runs a query with JSON output (`nft -j list …`).
///
/// # Errors
/// [`NftError`]; also when the object does not exist.
pub fn list(step: &str, object: &[&str]) -> Result<String, NftError> {
    let mut args = vec!["-j", "list"];
    args.extend(object);
    run(step, &args, "")
}

fn run(step: &str, args: &[&str], stdin: &str) -> Result<String, NftError> {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Start)?;
    if let Some(mut pipe) = child.stdin.take() {
        // When nft exits early, its status and stderr say why.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    let output = child.wait_with_output().map_err(NftError::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(NftError::Refused {
        step: step.to_owned(),
        reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
