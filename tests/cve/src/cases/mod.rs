//! Every case, in the order of docs/security-model.md.

mod config;
mod descriptors;
mod devices;
mod environment;
mod images;
mod invariants;
mod privilege;
mod processes;
mod program;
mod races;
mod users;

use crate::case::Case;

/// All cases.
pub fn all() -> Vec<Case> {
    [
        descriptors::CASES,
        program::CASES,
        processes::CASES,
        races::CASES,
        images::CASES,
        privilege::CASES,
        users::CASES,
        devices::CASES,
        environment::CASES,
        invariants::CASES,
        config::CASES,
    ]
    .concat()
}
