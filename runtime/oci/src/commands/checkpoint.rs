//! `checkpoint` and `restore`: refused.

use std::process::ExitCode;

use berth_oci::fault;

use super::Failure;

pub(super) fn refuse(verb: &str) -> Result<ExitCode, Failure> {
    if fault::is(fault::defence::RESTORE) {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Unsupported {
        what: verb.to_owned(),
        reason:
            "it would need CRIU, which rebuilds a process without the checks that a start passes"
                .to_owned(),
    })
}
