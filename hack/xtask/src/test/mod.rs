//! `cargo xtask test`: the rings, one after another, with one line of counts at the end.

mod binaries;
mod count;
mod former;
mod in_vm;
mod rings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

pub use count::Count;

/// A ring of tests, from the fastest to the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ring {
    /// Format, clippy, arrows, lengths, links, licences
    Tidy,
    /// Pure tables and property tests; no privilege
    Unit,
    /// Namespaces, mounts, images, CNI on this machine; needs root
    Root,
    /// The known attacks on OCI runtimes, against berth-oci; needs root
    Cve,
    /// The tour with kubectl on this machine; needs root
    Smoke,
    /// Tests of limits and the tour in the reference VM, where nothing may be skipped
    Vm,
}

/// What runs when no ring is named.
const DEFAULT: [Ring; 6] = [
    Ring::Tidy,
    Ring::Unit,
    Ring::Root,
    Ring::Cve,
    Ring::Smoke,
    Ring::Vm,
];

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these rings; without, all
    #[arg(value_enum)]
    rings: Vec<Ring>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// The root ring serves pods of this monitor, the former release's; without, of the last tag's
    #[arg(long, value_name = "PATH")]
    previous_monitor: Option<PathBuf>,
    /// The VM ring uses the programs of this folder instead of building them
    #[arg(long, hide = true)]
    prebuilt: Option<PathBuf>,
}

/// Runs the rings; ends with `N passed, N failed, N skipped`.
pub fn run(options: &Options) -> Result<ExitCode> {
    let wanted = if options.rings.is_empty() {
        &DEFAULT[..]
    } else {
        &options.rings
    };
    let filter = options.filter.as_deref();
    let mut total = Count::default();
    for ring in wanted {
        let started = Instant::now();
        let count = match ring {
            Ring::Tidy => rings::tidy(),
            Ring::Unit => rings::unit(filter),
            Ring::Root => rings::root(filter, options.previous_monitor.as_deref()),
            Ring::Cve => rings::cve(filter),
            Ring::Smoke => rings::smoke(),
            Ring::Vm => rings::vm(filter, options.prebuilt.as_deref()),
        };
        // a ring that cannot even start is one failure; the others still run
        let count = count.unwrap_or_else(|error| {
            println!("{ring:?}: {error:#}");
            Count {
                failed: 1,
                ..Count::default()
            }
        });
        let seconds = started.elapsed().as_secs();
        println!(
            "ring {ring:?}: {count} in {} min {} s",
            seconds / 60,
            seconds % 60
        );
        total += count;
    }
    println!("{total}");
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
