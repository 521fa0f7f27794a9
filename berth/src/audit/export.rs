//! `berth audit export`: the signed head and the entries it signs, to be kept elsewhere.

use std::io::Write;

use anyhow::Context;
use berth_audit::Head;

use super::{Place, each_entry};
use crate::config::File;

/// Flags of `berth audit export`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Only entries from this number on; a number above the newest prints the head alone
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    since: u64,
}

/// Prints the head and the entries.
pub fn run(options: &Options, file: &File) -> anyhow::Result<()> {
    let folder = options.place.folder(file);
    // Before the entries, so that all it signs are there.
    let line = berth_audit::read_head(&folder).context("cannot read the audit log")?;
    let line = line.context("the audit log has no signed head yet")?;
    let head = Head::claimed(&line).context("the head of the audit log cannot be read")?;
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    each_entry(&folder, |entry, line| {
        if (options.since..=head.last.seq).contains(&entry.seq) {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}
