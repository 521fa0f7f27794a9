//! The VM ring: tests that need what only the VM has and the tour, in one session of the
//! reference VM, where nothing may be skipped.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::binaries::Binary;
use super::count::{Count, skip_reasons};
use crate::validation::Short;
use crate::vm::{self, Order};

/// The VM is stopped after this: four times what the ring takes on two processors.
const LIMIT: Duration = Duration::from_mins(40);
/// Seconds after which a test program hangs.
const PROGRAM_LIMIT: u32 = 600;

/// What a session runs.
pub struct Session<'a> {
    /// Folder of the five programs.
    pub programs: &'a Path,
    /// The test programs, each with root tests.
    pub binaries: &'a [Binary],
    /// Those that change the machine for good: they run when all else is done.
    pub last: &'a [Binary],
    /// berth-oci with its faults and crash points.
    pub faulty: &'a Path,
    /// Which of their tests.
    pub filter: &'a str,
    /// Arguments of `up` that take the tour; none without it.
    pub tour: &'a [&'a str],
    /// The short form of the OCI validation.
    pub validation: Option<&'a Short>,
}

impl Session<'_> {
    /// Runs everything in one VM. Outputs come back through a shared folder.
    pub fn run(&self) -> Result<Count> {
        let share = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
        let code = vm::execute(&Order {
            script: &self.script()?,
            share: Some(share.path()),
            timeout: LIMIT,
            api_port: None,
            system: vm::System::Plain,
        })?;
        let mut total = Count::default();
        for binary in self.binaries.iter().chain(self.last) {
            let output = read(&share.path().join(binary.label()));
            let count = count(&output, Count::of_libtest(&output));
            println!("  vm {}: {count}", binary.label());
            total += count;
        }
        if let Some(short) = self.validation {
            let count = short.count(share.path());
            println!("  vm oci-validation: {count}");
            total += count;
        }
        if !self.tour.is_empty() {
            let output = read(&share.path().join("tour"));
            let count = count(&output, Count::of_smoke(&output));
            println!("  vm tour: {count}");
            total += count;
        }
        if code >= vm::TIMED_OUT {
            bail!("the VM did not finish; until then: {total}");
        }
        Ok(total)
    }

    fn script(&self) -> Result<String> {
        let mut script = vm::setup(self.programs)?;
        let programs = vm::PROGRAMS;
        script.push_str(&format!(
            "export BERTH_REQUIRE_ALL=1 BERTH_TEST_PATIENCE=10 BERTH_TEST_DISPOSABLE=1 \
             BERTH_DIST={programs} BERTH_PAUSE={programs}/berth-pause \
             BERTH_TEST_RUNTIME={programs}/berth-oci BERTH_TEST_FAULTY_RUNTIME=/data/faulty\n\
             cp {} /data/faulty\n",
            vm::in_guest(self.faulty)
        ));
        for binary in self.binaries {
            script.push_str(&self.call(binary));
        }
        if let Some(short) = self.validation {
            script.push_str(&short.script());
        }
        if !self.tour.is_empty() {
            let tour = vm::tour_script(self.tour);
            script.push_str(&format!("(\n{tour}) >/mnt/rw/tour 2>&1\n"));
        }
        for binary in self.last {
            script.push_str(&self.call(binary));
        }
        script.push_str("true\n");
        Ok(script)
    }

    /// Runs a test program.
    fn call(&self, binary: &Binary) -> String {
        let program = vm::quote(&binary.path.display().to_string());
        let folder = vm::quote(&binary.folder.display().to_string());
        format!(
            "cd {folder}; timeout {PROGRAM_LIMIT} {program} {} --test-threads=1 \
             --show-output >/mnt/rw/{} 2>&1\n",
            vm::quote(self.filter),
            binary.label(),
        )
    }
}

/// The counts, with the whole output where something is wrong; no summary is one failure.
fn count(output: &str, counted: Option<Count>) -> Count {
    let failed = Count {
        failed: 1,
        ..Count::default()
    };
    let count = counted.unwrap_or(failed);
    if count.failed > 0 {
        println!("{output}");
    }
    for reason in skip_reasons(output) {
        println!("  skipped: {reason}");
    }
    count
}

fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
