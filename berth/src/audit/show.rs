//! `berth audit show`: entries, as a table or as they are.

use std::io::Write;

use anyhow::Context;
use berth_audit::{Entry, Kind};
use clap::ValueEnum;

use super::{Place, each_entry, is_container, record};
use crate::config::File;

/// Flags of `berth audit show`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Only entries of this pod, NAMESPACE/NAME or NAME
    #[arg(long, value_name = "POD")]
    pod: Option<String>,
    /// Only entries of this container: its name, or the beginning of its identifier
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// Only entries since then: an age such as 90s, 10m, 2h or 7d, or an RFC 3339 time
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// A table, or the entries as they are in the log, one a line
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints the entries that are asked for.
pub fn run(options: &Options, file: &File) -> anyhow::Result<()> {
    let since = options.since.as_deref().map(since).transpose()?;
    let mut out = std::io::stdout().lock();
    let mut rows = Vec::new();
    each_entry(&options.place.folder(file), |entry, line| {
        if !options.asks_for(&entry, since.as_deref()) {
            return Ok(());
        }
        match options.output {
            Output::Json => {
                out.write_all(line)?;
                out.write_all(b"\n")?;
            }
            Output::Table => rows.push(row(&entry)),
        }
        Ok(())
    })?;
    if let Output::Table = options.output {
        print_table(&mut out, &rows)?;
    }
    Ok(())
}

impl Options {
    fn asks_for(&self, entry: &Entry, since: Option<&str>) -> bool {
        let subject = &entry.subject;
        let of_pod = |asked: &String| match asked.split_once('/') {
            Some((namespace, pod)) => subject.namespace == namespace && subject.pod == pod,
            None => subject.pod == *asked,
        };
        self.pod.as_ref().is_none_or(of_pod)
            && self
                .container
                .as_ref()
                .is_none_or(|asked| is_container(entry, asked))
            // All times are UTC with nine digits: they sort as texts.
            && since.is_none_or(|since| entry.time.as_str() >= since)
    }
}

/// The time that an age or a time means, as entries tell it.
fn since(text: &str) -> anyhow::Result<String> {
    berth_audit::since(text).with_context(|| {
        format!("--since: `{text}` is neither an age (10m, 2h) nor an RFC 3339 time")
    })
}

const HEADS: [&str; 7] = ["SEQ", "TIME", "KIND", "POD", "CONTAINER", "VERDICT", "WHAT"];

fn row(entry: &Entry) -> [String; 7] {
    let subject = &entry.subject;
    let record = record(entry);
    let pod = match subject.namespace.as_str() {
        "" => subject.pod.clone(),
        namespace => format!("{namespace}/{}", subject.pod),
    };
    let what = match entry.kind {
        Kind::Start => subject.image.clone(),
        Kind::Exec => subject.command.join(" "),
        Kind::Update => "limits".to_owned(),
        Kind::Pull => format!("{} from {}", subject.image, subject.from),
        Kind::Log => {
            let notes = record["notes"].as_array().cloned().unwrap_or_default();
            let notes = notes.iter().filter_map(|note| note.as_str());
            let event = record["event"].as_str().unwrap_or_default();
            std::iter::once(event)
                .chain(notes)
                .collect::<Vec<_>>()
                .join("; ")
        }
    };
    let time = entry.time.get(..19).unwrap_or(&entry.time);
    let cells = [
        entry.seq.to_string(),
        format!("{time}Z"),
        entry.kind.to_string(),
        pod,
        subject.container.clone(),
        record["verdict"].as_str().unwrap_or_default().to_owned(),
        what,
    ];
    cells.map(|cell| match cell.as_str() {
        "" => "-".to_owned(),
        // What a workload chose must not steer the reader's terminal.
        text => text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect(),
    })
}

fn print_table(out: &mut impl Write, rows: &[[String; 7]]) -> std::io::Result<()> {
    let heads = HEADS.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| all().map(|row| row[i].chars().count()).max().unwrap_or(0))
        .collect();
    for row in all() {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
