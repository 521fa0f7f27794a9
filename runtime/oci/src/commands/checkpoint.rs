//! `checkpoint` and `restore`: refused.

use super::Failure;

pub(super) fn refused(verb: &str) -> Failure {
    Failure::Unsupported {
        what: verb.to_owned(),
        reason:
            "it would need CRIU, which rebuilds a process without the checks that a start passes"
                .to_owned(),
    }
}
