//! Executing the runtime's program: bounded in time, with its own words on failure.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use berth_oci::spec::config::Process;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::stdio::ChildEnds;

/// How long one call of the program may take. The monitor waits for it, so it must end.
const LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of the program's log that are read, from its start.
const LOG_MAX: u64 = 64 * 1024;

/// Why the program did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be executed.
    #[error("cannot execute `{program}`")]
    Execute {
        /// Its path.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("`{program}` {verb} did not end within {} s", LIMIT.as_secs())]
    Timeout {
        /// Its path.
        program: PathBuf,
        /// create, start, exec or delete.
        verb: String,
    },
    /// It failed.
    #[error("`{program}` {verb}: {reason}")]
    Failed {
        /// Its path.
        program: PathBuf,
        /// create, start, exec or delete.
        verb: String,
        /// Its own words, or its exit status.
        reason: String,
    },
    /// A file for it cannot be written or one of it not be read.
    #[error("cannot use `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its pid file names no process.
    #[error("`{0}` names no running process")]
    Pid(PathBuf),
}

/// A file that goes when dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The program with what is the same in all its calls.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Global arguments.
    pub(super) fixed: Vec<OsString>,
    /// Start of the names of files made for a call.
    pub(super) scratch: PathBuf,
}

impl Program {
    /// Runs the program to its end; the first argument is the verb.
    pub(super) fn run(
        &self,
        arguments: Vec<OsString>,
        io: Option<ChildEnds>,
    ) -> Result<(), ProgramError> {
        let log = self.scratch("log");
        let verb = arguments
            .first()
            .map(|verb| verb.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut command = Command::new(&self.path);
        command
            .args(&self.fixed)
            .arg("--log")
            .arg(log.path())
            .args(["--log-format", "json"])
            .args(arguments);
        match io {
            Some(io) => command.stdin(io.stdin).stdout(io.stdout).stderr(io.stderr),
            None => command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        };
        let child = command.spawn().map_err(|source| ProgramError::Execute {
            program: self.path.clone(),
            source,
        })?;
        // With it go our copies of the container's ends of its pipes.
        drop(command);
        let program = self.path.clone();
        match wait(child) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(ProgramError::Failed {
                program,
                verb,
                reason: last_error(log.path()).unwrap_or_else(|| status.to_string()),
            }),
            Ok(None) => Err(ProgramError::Timeout { program, verb }),
            Err(source) => Err(ProgramError::Execute { program, source }),
        }
    }

    /// Runs the program with `--pid-file` and the id at the end, and returns the process that it left.
    pub(super) fn run_for_pid(
        &self,
        mut arguments: Vec<OsString>,
        id: &str,
        io: Option<ChildEnds>,
    ) -> Result<(i32, OwnedFd), ProgramError> {
        let file = self.scratch("pid");
        arguments.extend(["--pid-file".into(), file.path().into(), id.into()]);
        self.run(arguments, io)?;
        let text = std::fs::read_to_string(file.path()).map_err(|source| ProgramError::File {
            path: file.path().to_path_buf(),
            source,
        })?;
        let missing = || ProgramError::Pid(file.path().to_path_buf());
        let pid: i32 = text.trim().parse().map_err(|_| missing())?;
        // Our child by now and not reaped, so the number is its own even if it has ended.
        let pidfd = berth_sys::process::pidfd_open(pid).map_err(|_| missing())?;
        Ok((pid, pidfd))
    }

    /// Writes the process object of an exec for the program.
    pub(super) fn write_process(&self, process: &Process) -> Result<Scratch, ProgramError> {
        let file = self.scratch("process");
        serde_json::to_vec(process)
            .map_err(io::Error::from)
            .and_then(|bytes| std::fs::write(file.path(), bytes))
            .map_err(|source| ProgramError::File {
                path: file.path().to_path_buf(),
                source,
            })?;
        Ok(file)
    }

    fn scratch(&self, kind: &str) -> Scratch {
        let path = self.scratch.with_added_extension(kind);
        let _ = std::fs::remove_file(&path);
        Scratch(path)
    }
}

/// Waits for a child, at most [`LIMIT`]; `None` when it had to be killed.
fn wait(mut child: Child) -> io::Result<Option<ExitStatus>> {
    let pidfd = berth_sys::process::pidfd_open(child.id().cast_signed())?;
    let limit = Timespec {
        tv_sec: LIMIT.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let fd = pidfd.as_fd();
    let ready = rustix::io::retry_on_intr(|| {
        rustix::event::poll(
            &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
            Some(&limit),
        )
    })?;
    if ready == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    Ok(Some(child.wait()?))
}

/// The last error message in a runtime's JSON log.
fn last_error(log: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(log)
        .ok()?
        .take(LOG_MAX)
        .read_to_string(&mut text)
        .ok()?;
    parse_last_error(&text)
}

fn parse_last_error(text: &str) -> Option<String> {
    text.lines().rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        (entry.get("level")?.as_str()? == "error").then_some(())?;
        Some(entry.get("msg")?.as_str()?.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let log = concat!(
            r#"{"level":"error","msg":"first","time":"t"}"#,
            "\n",
            r#"{"level":"error","msg":"exec: \"x\": not found \n","time":"t"}"#,
            "\n",
            r#"{"level":"warning","msg":"later","time":"t"}"#,
            "\nnot json\n"
        );
        assert_eq!(
            parse_last_error(log).as_deref(),
            Some("exec: \"x\": not found")
        );
        assert_eq!(parse_last_error(""), None);
    }

    #[test]
    fn a_program_s_failure_is_told_in_its_words_or_by_its_status() {
        let scratch = std::env::temp_dir().join(format!("berth-program-{}", std::process::id()));
        let program = |path: &str| Program {
            path: path.into(),
            fixed: Vec::new(),
            scratch: scratch.clone(),
        };
        assert!(program("/bin/true").run(vec!["start".into()], None).is_ok());
        let failed = program("/bin/false")
            .run(vec!["start".into()], None)
            .unwrap_err()
            .to_string();
        assert_eq!(failed, "`/bin/false` start: exit status: 1");
        assert!(matches!(
            program("/no/such").run(vec!["start".into()], None),
            Err(ProgramError::Execute { .. })
        ));
    }
}
