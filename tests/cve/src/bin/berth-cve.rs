//! Puts OCI runtimes through the known attacks; ends with `N passed, N failed, N skipped`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use berth_test_cve::{Case, Claim, Outcome, PROOFS, Proof, Runtime, Suite, Terms, Verdict, all};
use clap::Parser;

/// Puts OCI runtimes through the known attacks.
#[derive(Parser)]
struct Options {
    /// The runtime's program; may be given more than once
    #[arg(long, required = true)]
    runtime: Vec<PathBuf>,
    /// The static probe
    #[arg(long)]
    probe: PathBuf,
    /// Races of 10 000 rounds and whole tables
    #[arg(long)]
    long: bool,
    /// Where random pauses start
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only cases whose name or identifier contains this
    #[arg(long)]
    only: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Also print the table of docs/security-model.md
    #[arg(long)]
    table: bool,
    /// The runtime is a berth-oci with faults: demand that cases fail when a defence is left out
    #[arg(long, conflicts_with_all = ["long", "json", "table"], requires = "dynamic")]
    prove: bool,
    /// The same, linked to libraries
    #[arg(long)]
    dynamic: Option<PathBuf>,
}

/// Verdicts by case, one for each runtime.
type Table = BTreeMap<&'static str, Vec<Verdict>>;

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if options.prove {
        return options.prove();
    }
    let cases: Vec<Case> = all()
        .into_iter()
        .filter(|case| options.takes(case))
        .collect();
    let suite = Suite {
        probe: &options.probe,
        terms: Terms {
            long: options.long,
            seed: options.seed,
        },
        cases: cases.clone(),
    };
    let mut counts = [0_usize; 3];
    let mut table = Table::new();
    let mut runtimes = Vec::new();
    for program in &options.runtime {
        let runtime = Runtime::open(program)?;
        if !options.json {
            println!("{} {}", runtime.name, runtime.version);
        }
        suite.run(&runtime, |outcome| {
            let place = match outcome.verdict {
                Verdict::Pass(_) => 0,
                Verdict::Fail(_) => 1,
                Verdict::Skipped(_) => 2,
            };
            counts[place] += 1;
            options.tell(&runtime, outcome);
            let row = table.entry(outcome.case).or_default();
            row.push(outcome.verdict.clone());
        })?;
        runtimes.push(runtime);
    }
    if options.table {
        print_table(&cases, &runtimes, &table);
    }
    let [passed, failed, skipped] = counts;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Options {
    /// Runs each proof; one whose case does not fail is a failure.
    fn prove(&self) -> Result<ExitCode> {
        let [mut bite, mut pass, mut skipped] = [0_usize; 3];
        let wanted = |claim: &Claim| {
            let only = self.only.as_ref();
            only.is_none_or(|text| claim.case.contains(text))
        };
        for claim in PROOFS.into_iter().filter(wanted) {
            let linked = self.dynamic.as_ref().filter(|_| claim.dynamic);
            let runtime = linked.unwrap_or(&self.runtime[0]);
            let proof = Proof::of(claim, runtime, &self.probe)?;
            let (word, count) = match (proof.bites(), proof.is_skipped()) {
                (true, _) => ("bites", &mut bite),
                (false, true) => ("skipped:", &mut skipped),
                (false, false) => ("DOES NOT BITE", &mut pass),
            };
            *count += 1;
            println!(
                "  {word} {} where {}: {}",
                claim.case, claim.fault, proof.said
            );
        }
        println!("{bite} passed, {pass} failed, {skipped} skipped");
        Ok(match pass {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }

    fn takes(&self, case: &Case) -> bool {
        let Some(text) = &self.only else {
            return true;
        };
        case.name.contains(text) || case.ids.iter().any(|id| id.contains(text))
    }

    fn tell(&self, runtime: &Runtime, outcome: &Outcome) {
        let (word, detail) = (outcome.verdict.word(), outcome.verdict.detail());
        if self.json {
            let line = serde_json::json!({
                "suite": "cve", "runtime": runtime.name, "version": runtime.version,
                "case": outcome.case, "ids": outcome.ids, "verdict": word, "detail": detail,
                "ms": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            });
            println!("{line}");
            return;
        }
        let ids = outcome.ids.join(", ");
        let seconds = outcome.took.as_secs_f64();
        match outcome.verdict {
            Verdict::Skipped(_) => println!("  skipped: {detail} [{}; {ids}]", outcome.case),
            _ => println!("  {word} {} [{ids}] {seconds:.1} s: {detail}", outcome.case),
        }
    }
}

/// The table of who passes, as Markdown.
fn print_table(cases: &[Case], runtimes: &[Runtime], table: &Table) {
    let names: Vec<String> = runtimes
        .iter()
        .map(|runtime| format!("{} {}", runtime.name, runtime.version))
        .collect();
    println!("| case | about | what | {} |", names.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(names.len()));
    for case in cases {
        let words: Vec<&str> = table
            .get(case.name)
            .into_iter()
            .flatten()
            .map(|verdict| match verdict {
                Verdict::Fail(_) => "**fail**",
                other => other.word(),
            })
            .collect();
        let (ids, what) = (case.ids.join(", "), case.what);
        println!("| {} | {ids} | {what} | {} |", case.name, words.join(" | "));
    }
}
