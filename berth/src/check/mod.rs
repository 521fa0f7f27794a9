//! `berth check`: what of this machine berth needs, and what to do where it is missing.

mod probes;

use std::process::ExitCode;

/// Flags of `berth check`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a probe came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As needed; the text says what was found.
    Ok(String),
    /// berth runs, but does less; what, and the remedy.
    Degraded { found: String, remedy: String },
    /// berth cannot run; the remedy.
    Missing { found: String, remedy: String },
}

/// One thing that is looked at.
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// Looks at the machine, changes nothing.
    pub look: fn() -> Outcome,
}

/// Prints a line a probe; exit status 1 when something needed is missing.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let results: Vec<(&str, Outcome)> = probes::ALL
        .iter()
        .map(|probe| (probe.name, (probe.look)()))
        .collect();
    let missing = results
        .iter()
        .any(|(_, outcome)| matches!(outcome, Outcome::Missing { .. }));
    if options.json {
        let list: Vec<serde_json::Value> = results
            .iter()
            .map(|(name, outcome)| to_json(name, outcome))
            .collect();
        println!("{}", serde_json::json!({ "ok": !missing, "checks": list }));
    } else {
        for (name, outcome) in &results {
            print_line(name, outcome);
        }
    }
    Ok(ExitCode::from(u8::from(missing)))
}

fn print_line(name: &str, outcome: &Outcome) {
    match outcome {
        Outcome::Ok(found) => println!("ok        {name}: {found}"),
        Outcome::Degraded { found, remedy } => {
            println!("degraded  {name}: {found}\n            remedy: {remedy}")
        }
        Outcome::Missing { found, remedy } => {
            println!("MISSING   {name}: {found}\n            remedy: {remedy}")
        }
    }
}

fn to_json(name: &str, outcome: &Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Ok(found) => serde_json::json!({ "name": name, "state": "ok", "found": found }),
        Outcome::Degraded { found, remedy } => {
            serde_json::json!({ "name": name, "state": "degraded", "found": found, "remedy": remedy })
        }
        Outcome::Missing { found, remedy } => {
            serde_json::json!({ "name": name, "state": "missing", "found": found, "remedy": remedy })
        }
    }
}
