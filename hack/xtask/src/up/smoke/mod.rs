//! The tour: named steps, each asserting what a user sees.
//!
//! The steps run in the order of the table; a later one may use what an earlier one made.

mod audit;
mod cri_client;
mod failing;
mod inside;
mod lasting;
mod limits;
mod objects;
mod oci;
mod refused;
mod room;
mod serve;
mod static_pod;
mod through_cri;
mod tour;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use berth_test_harness::{Places, Snapshot};

pub use room::ensure_room;
pub use tour::{DATA, Tour};

use crate::signal::Interrupts;

/// One step.
pub struct Step {
    /// What it proves, for the reader.
    pub name: &'static str,
    /// Where it can run.
    pub place: Place,
    run: fn(&mut Tour) -> Result<()>,
}

/// Where a step can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On any host.
    Anywhere,
    /// Only where cgroup v2 enforces limits.
    Limits,
}

/// A step that runs anywhere.
const fn step(name: &'static str, run: fn(&mut Tour) -> Result<()>) -> Step {
    Step {
        name,
        place: Place::Anywhere,
        run,
    }
}

const TABLES: [&[Step]; 11] = [
    oci::STEPS,
    through_cri::STEPS,
    static_pod::STEPS,
    serve::STEPS,
    inside::STEPS,
    audit::STEPS,
    objects::STEPS,
    failing::STEPS,
    refused::STEPS,
    limits::STEPS,
    lasting::STEPS,
];

/// Prints every step by name.
pub fn list() {
    for step in TABLES.iter().copied().flatten() {
        let place = if step.place == Place::Limits {
            " (where limits are enforced)"
        } else {
            ""
        };
        println!("{}{place}", step.name);
    }
}

impl Tour {
    /// Takes every step whose name contains `only`, checks for leaks, and prints the
    /// counts: `smoke: N steps passed, leaks 0` when all is well.
    pub fn take(mut self, only: Option<&str>) -> Result<ExitCode> {
        let places = Places {
            leases: self.data.join("cri/cni"),
            ..Places::default()
        };
        let before = Snapshot::take(&places)?;
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        let chosen = |step: &&Step| only.is_none_or(|part| step.name.contains(part));
        let mut interrupts = Interrupts::take()?;
        for step in TABLES.iter().copied().flatten().filter(chosen) {
            if interrupts.pending().is_some() {
                println!("FAIL  interrupted before: {}", step.name);
                failed += 1;
                break;
            }
            if step.place == Place::Limits && !self.limits {
                println!("skipped: {}: cgroup v2 has no controllers here", step.name);
                skipped += 1;
                continue;
            }
            if self.take_step(step) {
                passed += 1;
            } else {
                failed += 1;
            }
        }
        if let Err(error) = self.end() {
            println!("FAIL  ending the tour: {error:#}");
            failed += 1;
        }
        let leaks = before.leaks(&places)?;
        for leak in &leaks {
            println!("leak  {leak}");
        }
        self.report(failed > 0 || !leaks.is_empty());
        if skipped > 0 {
            println!(
                "{skipped} steps need enforced limits: `cargo xtask up --smoke --vm` takes them"
            );
        }
        let failures = if failed > 0 {
            format!("{failed} failed, ")
        } else {
            String::new()
        };
        println!(
            "smoke: {passed} steps passed, {failures}leaks {}",
            leaks.len()
        );
        let well = failed == 0 && leaks.is_empty();
        Ok(if well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Takes one step and prints how it went.
    fn take_step(&mut self, step: &Step) -> bool {
        let started = Instant::now();
        let result = (step.run)(self);
        let seconds = started.elapsed().as_secs_f32();
        match &result {
            Ok(()) => println!("ok    {seconds:6.2} s  {}", step.name),
            Err(error) => println!("FAIL  {seconds:6.2} s  {}: {error:#}", step.name),
        }
        result.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn steps_have_their_own_names_and_are_at_least_45() {
        let names: Vec<&str> = TABLES
            .iter()
            .copied()
            .flatten()
            .map(|step| step.name)
            .collect();
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len());
        assert!(names.len() >= 45, "{} steps", names.len());
    }
}
