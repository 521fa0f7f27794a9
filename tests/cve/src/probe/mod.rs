//! What runs inside: a static program that tells what it sees and tries what it is told.

mod attempt;
mod hunt;
mod report;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

pub use hunt::Catch;
pub(crate) use hunt::{CAUGHT, END, LOG};
pub use report::{Descriptor, Report};

/// The exit code of a request that could not be carried out.
const FAILED: u8 = 98;

/// Does what the arguments ask.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["report-to", file] => report::write(file),
        ["report", canary @ ..] => report::print(canary.first().copied()),
        ["exit", code] => return ExitCode::from(code.parse().unwrap_or(FAILED)),
        ["wait"] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        ["open-for-writing", paths @ ..] => attempt::open_for_writing(paths),
        ["look", paths @ ..] => attempt::look(paths),
        ["content", paths @ ..] => attempt::content(paths),
        ["release-agent"] => attempt::release_agent(),
        ["packet-socket"] => attempt::packet_socket(),
        ["print", path] => attempt::print_file(path),
        ["read", path] => attempt::read(path),
        ["hunt", canary] => hunt::processes(canary),
        ["hunt-programs"] => hunt::programs(),
        ["overwrite", descriptor] => hunt::overwrite(descriptor),
        _ => Err(io::Error::other("unknown request")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::from(FAILED)
        }
    }
}
