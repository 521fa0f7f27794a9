//! Running the programs, several at a time.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::programs;
use crate::process;

/// Programs at a time: most of their time is sleep between two looks at a container's state.
const AT_ONCE: usize = 4;
/// Seconds after which a program hangs.
const PROGRAM_LIMIT: &str = "120";

/// A runtime's name in the table and its program.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub name: String,
    pub path: PathBuf,
}

/// What a program did with a runtime.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub runtime: String,
    pub program: String,
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Its standard output, TAP.
    pub output: String,
    /// Its standard error.
    pub errors: String,
}

/// The programs of a session and the folder they run in.
pub struct Session<'a> {
    programs: &'a Path,
    names: Vec<String>,
    folder: tempfile::TempDir,
}

impl<'a> Session<'a> {
    /// Sets a working folder up for the programs whose name contains one of `only`.
    pub fn new(programs: &'a Path, only: &[String]) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("berth-validation-")
            .tempdir()?;
        for name in programs::BESIDE {
            let copy = fs::copy(programs.join(name), folder.path().join(name));
            copy.with_context(|| format!("cannot copy {name}"))?;
        }
        let mut names = programs::names(programs)?;
        let wanted = |name: &String| only.iter().any(|part| name.contains(part.as_str()));
        names.retain(|name| only.is_empty() || wanted(name));
        anyhow::ensure!(!names.is_empty(), "no program has such a name");
        Ok(Self {
            programs,
            names,
            folder,
        })
    }

    /// Every program against each runtime, one runtime after the other.
    pub fn run_all(&self, runtimes: &[Runtime]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for runtime in runtimes {
            let version = process::output(Command::new(&runtime.path).arg("--version"))?;
            let version = version.lines().next().unwrap_or_default();
            eprintln!("xtask: {} programs against {version}", self.names.len());
            outcomes.extend(self.run(runtime)?);
            clean(runtime);
        }
        Ok(outcomes)
    }

    fn run(&self, runtime: &Runtime) -> Result<Vec<Outcome>> {
        // those of the same group of cgroups follow one another
        let (shared, alone): (Vec<&String>, Vec<&String>) =
            self.names.iter().partition(|name| shares_a_group(name));
        let mut queue: VecDeque<Vec<&String>> = alone.into_iter().map(|name| vec![name]).collect();
        queue.push_front(shared);
        let queue = Mutex::new(queue);
        let take = || {
            queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        let work = || -> Result<Vec<Outcome>> {
            let mut done = Vec::new();
            while let Some(names) = take() {
                for name in names {
                    done.push(self.run_one(runtime, name)?);
                }
            }
            Ok(done)
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let mut outcomes = Vec::new();
            for worker in workers {
                outcomes.extend(worker.join().expect("a worker does not panic")?);
            }
            Ok(outcomes)
        })
    }

    fn run_one(&self, runtime: &Runtime, program: &str) -> Result<Outcome> {
        // files, not pipes: a container that is left keeps its outputs open
        let (output, errors) = (self.file(program, "out")?, self.file(program, "err")?);
        let status = Command::new("timeout")
            .arg(PROGRAM_LIMIT)
            .arg(self.programs.join(program))
            .current_dir(self.folder.path())
            .env("RUNTIME", &runtime.path)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .with_context(|| format!("cannot run {program}"))?;
        let text = |end: &str| -> Result<String> {
            let bytes = fs::read(self.folder.path().join(format!("{program}.{end}")))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Outcome {
            runtime: runtime.name.clone(),
            program: program.into(),
            code: status.code(),
            output: text("out")?,
            errors: text("err")?,
        })
    }

    fn file(&self, program: &str, end: &str) -> Result<File> {
        Ok(File::create(
            self.folder.path().join(format!("{program}.{end}")),
        )?)
    }
}

impl Runtime {
    /// A runtime of this name.
    pub fn new(name: &str, path: PathBuf) -> Self {
        Self {
            name: name.into(),
            path,
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.path.display())
    }
}

impl FromStr for Runtime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, path) = text.split_once('=').ok_or("not NAME=PATH")?;
        Ok(Self::new(name, path.into()))
    }
}

/// Writes the outcomes for [`load`].
pub fn save(outcomes: &[Outcome], file: &Path) -> Result<()> {
    fs::write(file, serde_json::to_vec(outcomes)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Reads what [`save`] wrote.
pub fn load(file: &Path) -> Result<Vec<Outcome>> {
    let bytes = fs::read(file).with_context(|| format!("no results in {}", file.display()))?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn shares_a_group(program: &str) -> bool {
    program.contains("cgroups") || program.contains("resources")
}

/// Removes the containers that failed programs left; one that resists is told by the runtime.
fn clean(runtime: &Runtime) {
    let listed = Command::new(&runtime.path).args(["list", "-q"]).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    for id in String::from_utf8_lossy(&listed).split_whitespace() {
        let _ = Command::new(&runtime.path)
            .args(["delete", "--force", id])
            .status();
    }
}
