//! `berth audit`: the log of what was started, executed, changed and pulled on this machine.
//! Everything here but the probe reads the log's files alone, so it works when no daemon runs.

mod diff;
mod export;
mod probe;
mod show;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use berth_audit::{Entry, PUBLIC_KEY_NAME};
use clap::Subcommand;
use serde_json::Value;

use crate::config::File;

/// Flags of `berth audit`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print entries, oldest first
    ///
    /// Lines that are no entries are named on standard error; `berth audit verify` tells whether
    /// what is printed is what was written.
    Show(show::Options),
    /// Tell whether the log is whole, or which entry is the first that is not
    ///
    /// Verifies the hash of every entry, that each follows from the one before, that both ends
    /// are those signed with the node's key, and that nobody else may read or write the files.
    /// With --file it verifies what `berth audit export` printed on any machine.
    #[command(after_help = verify::AFTER_HELP)]
    Verify(verify::Options),
    /// Tell in what the kernel treated two processes differently
    ///
    /// A number is an entry; anything else is the identifier of a container, or the beginning of
    /// it, and means its newest start. Compared is what the kernel reported, not what was asked.
    Diff(diff::Options),
    /// Print the signed head and the entries up to it
    ///
    /// The output is JSON lines. Kept elsewhere, it shows later that the log was not changed
    /// since: `berth audit verify --file FILE --key node.pub`.
    Export(export::Options),
    /// Make a sandbox, look at it from within, and compare with what the log says of it
    ///
    /// Runs a pod of IMAGE with the CRI server's defaults and the runtime's seccomp profile, and
    /// in it a static program that prints as JSON what it is and what it may open. Nothing of the
    /// pod stays. Needs a running CRI server.
    Probe(probe::Options),
}

/// Where the log is.
#[derive(clap::Args)]
#[group(skip)]
struct Place {
    /// Directory of the log [default: /var/log/berth/audit, or cri.audit.dir]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn folder(&self, file: &File) -> PathBuf {
        let configured = || file.cri.audit.dir.clone();
        let folder = self.dir.clone().or_else(configured);
        folder.unwrap_or_else(|| "/var/log/berth/audit".into())
    }
}

/// Runs one verb.
pub fn run(options: Options, file: &File) -> anyhow::Result<ExitCode> {
    match dispatch(options, file) {
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

fn dispatch(options: Options, file: &File) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match options.verb {
        Verb::Show(options) => show::run(&options, file).map(done),
        Verb::Verify(options) => verify::run(&options, file),
        Verb::Diff(options) => diff::run(&options, file),
        Verb::Export(options) => export::run(&options, file).map(done),
        Verb::Probe(options) => probe::run(&options, file).map(done),
    }
}

/// The node's public key where the daemon publishes it.
fn published_key(file: &File) -> PathBuf {
    let data = file.cri.data_dir.clone();
    let data = data.unwrap_or_else(|| "/var/lib/berth/cri".into());
    data.join("audit").join(PUBLIC_KEY_NAME)
}

/// Calls `take` with every entry of the log and its line; lines that are none are told.
fn each_entry(
    folder: &std::path::Path,
    mut take: impl FnMut(Entry, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let lines = berth_audit::entries(folder).context("cannot read the audit log")?;
    for line in lines {
        let (path, line) = line.context("cannot read the audit log")?;
        match berth_audit::parse(&line.bytes) {
            Ok(entry) => take(entry, &line.bytes)?,
            Err(error) => {
                eprintln!("berth: {} line {}: {error}", path.display(), line.number);
            }
        }
    }
    Ok(())
}

/// The record of an entry; null where it has none.
fn record(entry: &Entry) -> Value {
    let text = entry.record.as_ref().map_or("null", |record| record.get());
    serde_json::from_str(text).unwrap_or_default()
}

/// Whether `asked` means the container of `entry`: the beginning of its identifier, or its name.
fn is_container(entry: &Entry, asked: &str) -> bool {
    let subject = &entry.subject;
    subject.container == asked || (!asked.is_empty() && subject.container_id.starts_with(asked))
}
