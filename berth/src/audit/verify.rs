//! `berth audit verify`: whether the log, or an export of it, is what was written.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use berth_audit::{Broken, PublicKey, Report};

use super::{Place, published_key};
use crate::config::File;

pub const AFTER_HELP: &str = "\
Exit status:
  0   whole
  1   broken, or cannot be read

The key proves who signed, not that the signer's machine was not taken over: whoever is root there
can sign a log of their own. Keep heads or exports elsewhere, and compare.";

/// Flags of `berth audit verify`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Verify this export instead of the log
    #[arg(long, value_name = "FILE", conflicts_with = "dir", requires = "key")]
    file: Option<PathBuf>,
    /// The node's public key [default: node.pub in the audit directory below cri.data_dir]
    #[arg(long, value_name = "PUB")]
    key: Option<PathBuf>,
}

/// Prints what is whole, or the first thing that is not.
pub fn run(options: &Options, file: &File) -> anyhow::Result<ExitCode> {
    let key_path = options.key.clone().unwrap_or_else(|| published_key(file));
    let key = PublicKey::read(&key_path).context("cannot use the node's public key")?;
    let (what, verified) = match &options.file {
        Some(path) => (path.clone(), verify_export(path, &key)?),
        None => {
            let folder = options.place.folder(file);
            let verified = berth_audit::verify_folder(&folder, &key);
            let verified = verified.context("cannot read the audit log")?;
            (folder, verified)
        }
    };
    Ok(match verified {
        Ok(report) => {
            println!("ok: {}: {}", what.display(), describe(&report));
            for note in &report.notes {
                println!("note: {note}");
            }
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("broken: {}: {broken}", what.display());
            ExitCode::FAILURE
        }
    })
}

fn verify_export(path: &PathBuf, key: &PublicKey) -> anyhow::Result<Result<Report, Broken>> {
    let opened = std::fs::File::open(path);
    let opened = opened.with_context(|| format!("cannot open `{}`", path.display()))?;
    berth_audit::verify_export(BufReader::new(opened), key)
        .with_context(|| format!("cannot read `{}`", path.display()))
}

fn describe(report: &Report) -> String {
    let head = &report.head;
    let entries = match report.first {
        Some(first) => format!("{} entries, {first} to {}", report.entries, report.last),
        None => "no entries".to_owned(),
    };
    format!(
        "{entries}; signed up to {} at {} with the key {}",
        head.last.seq, head.time, head.key
    )
}
