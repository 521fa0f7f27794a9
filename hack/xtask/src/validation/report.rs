//! What the outcomes come to: one row a program, and how far berth is behind its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Result;
use serde_json::{Value, json};

use super::OURS;
use super::execute::Outcome;
use super::gaps::Gaps;
use super::tap::{self, Test};

/// Tests of one program under one runtime.
type Tests = BTreeMap<Test, bool>;

/// The comparison of all runtimes.
pub struct Report {
    runtimes: Vec<String>,
    rows: Vec<Row>,
    /// Failures of berth that no gap explains.
    unexplained: Vec<String>,
    /// Gaps under which nothing fails.
    stale: Vec<String>,
}

/// One program.
struct Row {
    program: String,
    /// Passed and failed by each runtime, in their order.
    counts: Vec<(usize, usize)>,
    /// Tests that a peer passes and berth does not.
    behind: usize,
    why: String,
    /// What each gap says.
    notes: Vec<String>,
}

impl Report {
    /// Compares the outcomes.
    pub fn new(runtimes: &[&str], outcomes: &[Outcome], gaps: &Gaps) -> Self {
        let mut report = Self {
            runtimes: runtimes.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
            unexplained: Vec::new(),
            stale: Vec::new(),
        };
        let programs: BTreeSet<&str> = outcomes.iter().map(|o| o.program.as_str()).collect();
        for program in programs {
            let of = |runtime: &str| -> Tests {
                let found = outcomes
                    .iter()
                    .find(|o| o.program == program && o.runtime == runtime);
                found.map_or_else(Tests::new, |o| tap::results(&o.output, o.code))
            };
            let tests: Vec<Tests> = runtimes.iter().map(|name| of(name)).collect();
            let ours = runtimes.iter().position(|name| *name == OURS);
            report.add(program, &tests, ours, gaps);
            if let Some(o) = outcomes
                .iter()
                .find(|o| o.program == program && o.runtime == OURS)
                && report
                    .unexplained
                    .iter()
                    .any(|line| line.starts_with(program))
            {
                report
                    .unexplained
                    .push(format!("{program} said: {}", o.errors.trim()));
            }
        }
        report
    }

    fn add(&mut self, program: &str, tests: &[Tests], ours: Option<usize>, gaps: &Gaps) {
        let count = |tests: &Tests| {
            let passed = tests.values().filter(|passed| **passed).count();
            (passed, tests.len() - passed)
        };
        let mut row = Row {
            program: program.into(),
            counts: tests.iter().map(count).collect(),
            behind: 0,
            why: String::new(),
            notes: Vec::new(),
        };
        if let Some(ours) = ours {
            row.behind = behind(&tests[ours], tests);
            self.judge(program, &tests[ours], gaps);
            let mut reasons: Vec<&str> = gaps.of(program).map(|gap| gap.why.as_str()).collect();
            reasons.dedup();
            row.why = reasons.join("; ");
            row.notes = gaps.of(program).map(ToString::to_string).collect();
        }
        self.rows.push(row);
    }

    /// Holds berth's failures against the gaps, both ways.
    fn judge(&mut self, program: &str, tests: &Tests, gaps: &Gaps) {
        let failed: Vec<&str> = (tests.iter())
            .filter(|(_, passed)| !**passed)
            .map(|((name, _), _)| name.as_str())
            .collect();
        for name in &failed {
            if !gaps.of(program).any(|gap| gap.explains(name)) {
                self.unexplained.push(format!("{program}: {name}"));
            }
        }
        for gap in gaps.of(program) {
            for part in &gap.tests {
                if !failed.iter().any(|name| name.contains(part.as_str())) {
                    self.stale.push(format!("{program}: {part}"));
                }
            }
            if failed.is_empty() {
                self.stale.push(format!("{program}: everything"));
            }
        }
    }

    /// How many tests a peer passes and berth fails.
    pub fn behind(&self) -> usize {
        self.rows.iter().map(|row| row.behind).sum()
    }

    /// Whether berth's failures are those that the gaps list.
    pub fn is_explained(&self) -> bool {
        self.unexplained.is_empty() && self.stale.is_empty()
    }

    /// How many programs berth passes, or fails as the gaps list, and how many not.
    pub fn programs(&self) -> (usize, usize) {
        let is_wrong = |row: &&Row| {
            let prefix = format!("{}:", row.program);
            let mut lines = self.unexplained.iter().chain(&self.stale);
            lines.any(|line| line.starts_with(&prefix))
        };
        let wrong = self.rows.iter().filter(is_wrong).count();
        (self.rows.len() - wrong, wrong)
    }

    /// A table for people.
    pub fn print_table(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        write!(out, "{:<32}", "passed/failed")?;
        for name in &self.runtimes {
            write!(out, "{name:>9}")?;
        }
        writeln!(out, "  behind")?;
        for row in &self.rows {
            write!(out, "{:<32}", row.program)?;
            for (passed, failed) in &row.counts {
                write!(out, "{:>9}", format!("{passed}/{failed}"))?;
            }
            let behind = match row.behind {
                0 => "-".to_owned(),
                number => number.to_string(),
            };
            writeln!(out, "{}", format!("{behind:>8}  {}", row.why).trim_end())?;
        }
        let notes: BTreeSet<&String> = self.rows.iter().flat_map(|row| &row.notes).collect();
        for note in notes {
            writeln!(out, "{note}")?;
        }
        self.print_problems(&mut out)?;
        writeln!(out, "berth behind peers: {}", self.behind())?;
        Ok(())
    }

    /// What fails the run.
    pub fn print_problems(&self, out: &mut impl Write) -> Result<()> {
        for line in &self.unexplained {
            writeln!(out, "not explained in gaps.toml: {line}")?;
        }
        for line in &self.stale {
            writeln!(out, "passes, though gaps.toml lists it: {line}")?;
        }
        Ok(())
    }

    /// One object a program, then one with the sums.
    pub fn print_json(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        for row in &self.rows {
            let counts: serde_json::Map<String, Value> = (self.runtimes.iter())
                .zip(&row.counts)
                .map(|(name, (passed, failed))| {
                    (name.clone(), json!({"passed": passed, "failed": failed}))
                })
                .collect();
            let line = json!({
                "program": row.program, "runtimes": counts, "behind": row.behind, "why": row.notes,
            });
            writeln!(out, "{line}")?;
        }
        let last = json!({
            "behind": self.behind(), "unexplained": self.unexplained, "stale": self.stale,
        });
        writeln!(out, "{last}")?;
        Ok(())
    }
}

/// Tests that another runtime passes and ours does not. Where nothing of ours failed, tests
/// that it never came to belong to another outcome: of a program that passes when the
/// container is refused.
fn behind(ours: &Tests, all: &[Tests]) -> usize {
    if ours.values().all(|passed| *passed) {
        return 0;
    }
    let passed: BTreeSet<&Test> = all
        .iter()
        .flatten()
        .filter(|(_, passed)| **passed)
        .map(|(test, _)| test)
        .collect();
    let not_ours = |test: &&&Test| ours.get(**test) != Some(&true);
    passed.iter().filter(not_ours).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(runtime: &str, output: &str, code: i32) -> Outcome {
        Outcome {
            runtime: runtime.into(),
            program: "p".into(),
            code: Some(code),
            output: output.into(),
            errors: String::new(),
        }
    }

    fn gaps(tests: &str) -> Gaps {
        let text = format!(
            "[[gap]]\nprograms = ['p']\ntests = [{tests}]\nwhy = 'w'\nsection = 's'\n\
             sentence = 's'\nexplanation = 'e'\n"
        );
        Gaps::parse(&text).unwrap()
    }

    #[test]
    fn counts_what_a_peer_passes_and_berth_fails_or_never_reaches() {
        let outcomes = [
            outcome(OURS, "not ok 1 - a\nok 2 - b\n", 0),
            outcome("crun", "ok 1 - a\nnot ok 2 - b\n", 0),
            outcome("runc", "not ok 1 - a\nok 2 - b\nok 3 - c\n", 0),
        ];
        let report = Report::new(&[OURS, "crun", "runc"], &outcomes, &gaps("'a'"));
        assert_eq!(report.behind(), 2);
        assert!(report.is_explained());
    }

    #[test]
    fn a_refusal_that_the_program_wants_is_not_behind() {
        let outcomes = [
            outcome(OURS, "", 0),
            outcome("crun", "ok 1 - a\nok 2 - b\n", 1),
        ];
        let report = Report::new(
            &[OURS, "crun"],
            &outcomes,
            &Gaps::parse("gap = []").unwrap(),
        );
        assert_eq!(report.behind(), 0);
        assert!(report.is_explained());
    }

    #[test]
    fn a_failure_must_be_listed_and_what_is_listed_must_fail() {
        let outcomes = [outcome(OURS, "not ok 1 - a\nok 2 - b\n", 0)];
        let report = Report::new(&[OURS], &outcomes, &gaps("'b'"));
        assert_eq!(report.unexplained[0], "p: a");
        assert_eq!(report.stale, ["p: b"]);
        assert_eq!(report.programs(), (0, 1));
    }
}
