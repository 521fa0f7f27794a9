//! `cargo xtask bench`: berth and a peer, alternating, in one run.

mod audit;
mod berth;
mod containerd;
mod counts;
mod cri;
mod floor;
pub mod hierarchy;
mod host;
mod memory;
mod monitor;
mod neighbours;
mod oci;
mod pod;
mod runtime;
mod sample;
mod server;
mod stages;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::dist;
use crate::signal::Interrupts;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// One container under the OCI runtime's command line, against crun and runc
    Oci,
    /// One pod with one container over CRI, against containerd with runc
    Cri,
    /// Executions in a pod with a loud neighbour and with a stalled log disk, against quiet
    Exec,
    /// One pod with one container over CRI, against the same without entries in the audit log
    Audit,
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
    #[arg(long, alias = "runs", default_value_t = 30)]
    pairs: usize,
    /// Also count system calls and processes, and tell where the time of a create goes (oci; needs strace)
    #[arg(long)]
    counts: bool,
    /// Use the programs of this folder instead of building them
    #[arg(long, hide = true)]
    prebuilt: Option<PathBuf>,
}

/// How a bench is taken.
struct Terms {
    pairs: usize,
    counts: bool,
}

impl Terms {
    /// Takes the pairs; one before them warms the page cache.
    fn pairs(
        &self,
        interrupts: &mut Interrupts,
        mut pair: impl FnMut() -> Result<(f64, f64)>,
    ) -> Result<Vec<(f64, f64)>> {
        pair()?;
        (0..self.pairs)
            .map(|_| {
                interrupts.check()?;
                pair()
            })
            .collect()
    }
}

/// Measures and prints one line a case and peer.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = match &options.prebuilt {
        Some(folder) => folder.canonicalize()?,
        None => dist::build()?,
    };
    let terms = Terms {
        pairs: options.pairs,
        counts: options.counts,
    };
    let mut said = String::new();
    let print = |result: &sample::Comparison| {
        let mut out = std::io::stdout().lock();
        if options.json {
            return Ok(writeln!(out, "{}", result.json())?);
        }
        let heading = result.heading();
        if said != heading {
            writeln!(out, "{heading}")?;
            said = heading;
        }
        Ok(writeln!(out, "{}", result.line())?)
    };
    match options.name {
        Name::Oci => oci::run(&programs, &terms, print)?,
        Name::Cri => cri::run(&programs, &terms, print)?,
        Name::Exec => neighbours::run(&programs, &terms, print)?,
        Name::Audit => audit::run(&programs, &terms, print)?,
    }
    Ok(ExitCode::SUCCESS)
}
