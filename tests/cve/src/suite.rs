//! Running the cases against one runtime.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_test_harness::{Host, Places, Snapshot, check};
use nix::mount::{MsFlags, mount};

use crate::arena::Arena;
use crate::case::{Case, Verdict};
use crate::runtime::Runtime;

/// Where a host with cgroup v2 alone has it mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Rounds of a race in the short form, and in the long one.
const ROUNDS: (usize, usize) = (60, 10_000);

/// How the cases are run.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Races of ten thousand rounds and whole tables, instead of samples.
    pub long: bool,
    /// Where random pauses start.
    pub seed: u64,
}

impl Terms {
    /// Rounds of a race.
    pub(crate) fn rounds(self) -> usize {
        if self.long { ROUNDS.1 } else { ROUNDS.0 }
    }
}

/// A case and what came out.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The case's name.
    pub case: &'static str,
    /// Its identifiers.
    pub ids: &'static [&'static str],
    /// What came out.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// The cases, and how to run them.
pub struct Suite<'a> {
    /// The static probe.
    pub probe: &'a Path,
    /// How.
    pub terms: Terms,
    /// Which.
    pub cases: Vec<Case>,
}

impl Suite<'_> {
    /// Runs the cases in namespaces of their own and tells each outcome as soon as it is known.
    pub fn run(&self, runtime: &Runtime, mut tell: impl FnMut(&Outcome) + Send) -> Result<()> {
        Host::isolated(|_| {
            unify_cgroups()?;
            let control = self.control(runtime);
            control.context("a container without any attack must run")?;
            for case in &self.cases {
                let started = Instant::now();
                let verdict = self.judge(case, runtime);
                tell(&Outcome {
                    case: case.name,
                    ids: case.ids,
                    verdict,
                    took: started.elapsed(),
                });
            }
            Ok(())
        })
    }

    fn control(&self, runtime: &Runtime) -> Result<()> {
        let arena = Arena::new(runtime, self.probe, &self.terms)?;
        let report = arena.bundle("control", &["report"])?.run()?;
        let report = report.expect("run")?.report()?;
        if report.pid != 1 {
            bail!("it reports process {} as its first one", report.pid);
        }
        Ok(())
    }

    fn judge(&self, case: &Case, runtime: &Runtime) -> Verdict {
        if let Err(skipped) = check(case.needs) {
            return Verdict::Skipped(skipped.0);
        }
        self.observe(case, runtime)
            .unwrap_or_else(|error| Verdict::Fail(format!("the case broke: {error:#}")))
    }

    /// Runs the case, then looks for what it left on the machine.
    fn observe(&self, case: &Case, runtime: &Runtime) -> Result<Verdict> {
        let places = Places::default();
        let before = Snapshot::take(&places)?;
        let arena = Arena::new(runtime, self.probe, &self.terms)?;
        let verdict = (case.run)(&arena)?;
        let name = arena.folder().file_name().unwrap_or_default().to_owned();
        drop(arena);
        // others may use the machine: what counts is in this mount table, or bears the arena's name
        // (where others remove the folder below a mount, it is gone from this table too)
        let ours = |leak: &berth_test_harness::Leak| {
            !leak.lost && leak.kind == "mount" || leak.what.contains(&*name.to_string_lossy())
        };
        let leaks = before.difference(&Snapshot::take(&places)?);
        let left = match leaks.iter().any(&ours) {
            true => before.leaks(&places)?,
            false => Vec::new(),
        };
        match left.iter().find(|leak| ours(leak)) {
            Some(leak) => Ok(Verdict::Fail(format!("{leak}"))),
            None => Ok(verdict),
        }
    }
}

/// Shows cgroup v2 alone in the usual place, as a host without v1 has it: berth uses v2, runc would
/// make a group in each hierarchy of v1, crun refuses a host with both.
fn unify_cgroups() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut lines = mounts.lines().map(|line| line.split(' ').skip(1));
    let found = lines.find_map(|mut fields| {
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then_some(place)
    });
    match found {
        None | Some(CGROUPS) => Ok(()),
        Some(place) => mount(
            Some(place),
            CGROUPS,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .with_context(|| format!("cannot show `{place}` on `{CGROUPS}`")),
    }
}
