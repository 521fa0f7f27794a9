//! `cargo xtask bench`: berth and a peer, alternating, in one run.

mod oci;
mod sample;

use std::process::ExitCode;

use anyhow::Result;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// One container under the OCI runtime's command line, against crun and runc
    Oci,
}

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Options {
    /// What to measure
    #[arg(value_enum)]
    name: Name,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Pairs of runs a case
    #[arg(long, default_value_t = 30)]
    runs: usize,
}

/// Measures and prints one line a case and peer.
pub fn run(options: &Options) -> Result<ExitCode> {
    let results = match options.name {
        Name::Oci => oci::run(options.runs)?,
    };
    for result in results {
        println!(
            "{}",
            if options.json {
                result.json()
            } else {
                result.line()
            }
        );
    }
    Ok(ExitCode::SUCCESS)
}
