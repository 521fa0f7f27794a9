//! The workspace's test programs: built once, run here or in the VM.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::count::{Count, skip_reasons};
use crate::dist;

/// A program that runs longer hangs.
const LIMIT: Duration = Duration::from_mins(10);
/// The start of proptest's random inputs: whether a change passes depends on
/// the change alone. The variable in the environment searches elsewhere.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20");

/// One test program.
pub struct Binary {
    /// Package and target, for the reader.
    pub name: String,
    pub path: PathBuf,
    /// The package's folder: tests run in it.
    pub folder: PathBuf,
    /// One more variable of its environment.
    pub variable: Option<(&'static str, PathBuf)>,
}

/// Builds every test program of these packages; of the whole workspace without any.
pub fn build(packages: &[&str]) -> Result<Vec<Binary>> {
    let mut command = dist::cargo();
    command.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    if packages.is_empty() {
        command.arg("--workspace");
    }
    for package in packages {
        command.args(["--package", package]);
    }
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not compile");
    }
    let mut binaries = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let is_test = message["profile"]["test"] == true;
        let (Some(path), Some(manifest), true) = (
            text(&message["executable"]),
            text(&message["manifest_path"]),
            is_test,
        ) else {
            continue;
        };
        let folder = PathBuf::from(manifest)
            .parent()
            .map(PathBuf::from)
            .unwrap_or_default();
        let name = text(&message["target"]["name"]).unwrap_or_default();
        binaries.push(Binary {
            name,
            path: path.into(),
            folder,
            variable: None,
        });
    }
    binaries.sort_by(|a, b| (&a.folder, &a.name).cmp(&(&b.folder, &b.name)));
    Ok(binaries)
}

impl Binary {
    /// The package's folder and the name: a name alone may be another's too.
    pub fn label(&self) -> String {
        let folder = self.folder.file_name().unwrap_or_default();
        format!("{}-{}", folder.display(), self.name)
    }

    /// Whether the program has a test whose name contains `word`.
    pub fn has(&self, word: &str) -> bool {
        let listing = Command::new(&self.path)
            .args(["--list", "--format=terse", word])
            .current_dir(&self.folder)
            .output();
        listing.is_ok_and(|l| String::from_utf8_lossy(&l.stdout).contains(": test"))
    }

    /// Runs the program with these libtest arguments and counts its tests.
    pub fn run(&self, arguments: &[&str], require_all: bool) -> Result<Count> {
        let log = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&self.path);
        command
            .args(arguments)
            .arg("--show-output")
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .env("BERTH_DIST", dist::target_folder()?.join("dist"))
            .stdin(Stdio::null())
            .stdout(File::create(log.path())?)
            .stderr(File::options().append(true).open(log.path())?);
        if std::env::var_os(SEED.0).is_none() {
            command.env(SEED.0, SEED.1);
        }
        if let Some((name, value)) = &self.variable {
            command.env(name, value);
        }
        if require_all {
            command.env("BERTH_REQUIRE_ALL", "1");
        }
        let finished = run_within(&mut command)?;
        let output = String::from_utf8_lossy(&fs::read(log.path())?).into_owned();
        let mut count = Count::of_libtest(&output).unwrap_or_default();
        if !finished && count.failed == 0 {
            count.failed = 1;
        }
        if count.failed > 0 {
            println!("{output}");
        }
        for reason in skip_reasons(&output) {
            println!("  {}: skipped: {reason}", self.name);
        }
        println!(
            "  {} {}: {count}",
            self.folder.file_name().unwrap_or_default().display(),
            self.name
        );
        Ok(count)
    }
}

/// Whether the command ended within the limit with exit code 0.
fn run_within(command: &mut Command) -> Result<bool> {
    let mut child = command.spawn().context("cannot start a test program")?;
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() > deadline {
            println!("  hangs: ended after {} min", LIMIT.as_secs() / 60);
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        sleep(Duration::from_millis(10));
    }
}
