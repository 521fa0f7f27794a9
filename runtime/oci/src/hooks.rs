//! Running the spec's hooks: the state on standard input, an environment of their own, a time limit.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;

use crate::launch::{LaunchError, Stage};
use crate::plan::{Hook, Plan};
use crate::state::Status;

/// How much of a failed hook's error output is kept, in bytes.
const MAX_OUTPUT: u64 = 4096;

/// A hook that failed. Display is the start of runc's message, for which engines look.
#[derive(Debug, thiserror::Error)]
#[error("error running {name}")]
pub struct HookError {
    /// List and place of the hook, such as `createRuntime hook #0`.
    pub name: String,
    /// Why.
    #[source]
    pub failure: HookFailure,
}

impl From<HookError> for LaunchError {
    fn from(error: HookError) -> LaunchError {
        LaunchError::from_chain(Stage::Hook, error.to_string(), &error.failure)
    }
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookFailure {
    /// It cannot be executed, fed or waited for.
    #[error("cannot {action} hook `{path}`")]
    Access {
        /// What was tried.
        action: &'static str,
        /// Its program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("hook `{path}` failed ({status}): {output}")]
    Failed {
        /// Its program.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The start of its standard error.
        output: String,
    },
    /// It took longer than its time limit and was killed.
    #[error("hook `{path}` did not end within {} s", limit.as_secs())]
    Timeout {
        /// Its program.
        path: PathBuf,
        /// Its time limit.
        limit: Duration,
    },
}

/// The state object which a hook reads (runtime.md, "State"); without `pid` once there is no process.
pub fn state(plan: &Plan, status: Status, pid: u32) -> Vec<u8> {
    let mut state = serde_json::json!({
        "ociVersion": plan.oci_version,
        "id": plan.id,
        "status": status.as_str(),
        "bundle": plan.bundle,
        "annotations": plan.annotations,
    });
    if status != Status::Stopped {
        state["pid"] = pid.into();
    }
    state.to_string().into_bytes()
}

/// Runs hooks in order, in the working directory `cwd` (`/` if there is none); the first failure
/// ends it.
pub fn run(hooks: &[Hook], state: &[u8], cwd: &Path) -> Result<(), HookError> {
    let mut all = hooks.iter();
    all.try_for_each(|hook| run_named(hook, state, cwd))
}

/// As [`run`], but runs all of them, whichever fail; returns the failures.
pub fn run_all(hooks: &[Hook], state: &[u8], cwd: &Path) -> Vec<HookError> {
    let all = hooks.iter();
    all.filter_map(|hook| run_named(hook, state, cwd).err())
        .collect()
}

fn run_named(hook: &Hook, state: &[u8], cwd: &Path) -> Result<(), HookError> {
    run_one(hook, state, cwd).map_err(|failure| HookError {
        name: hook.name.clone(),
        failure,
    })
}

/// Runs one hook. Its streams are memory files, not pipes: it may read none of its state, say more
/// than anybody wants to know, or leave a process behind that keeps them open, and still nobody waits
/// for anything but its end.
fn run_one(hook: &Hook, state: &[u8], cwd: &Path) -> Result<(), HookFailure> {
    let failed = |action| {
        move |source| HookFailure::Access {
            action,
            path: hook.path.clone(),
            source,
        }
    };
    let input = memory_file(state).map_err(failed("feed"))?;
    let mut errors = memory_file(b"").map_err(failed("listen to"))?;
    let said = errors.try_clone().map_err(failed("listen to"))?;
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().map(|(name, value)| (name, value)));
    // A bundle may be gone by the time of poststop.
    command.current_dir(if cwd.is_dir() { cwd } else { Path::new("/") });
    command.stdin(input).stdout(Stdio::null()).stderr(said);
    let mut child = command.spawn().map_err(failed("execute"))?;
    if let Some(limit) = hook.timeout
        && !ends_within(&child, limit).map_err(failed("wait for"))?
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(HookFailure::Timeout {
            path: hook.path.clone(),
            limit,
        });
    }
    let status = child.wait().map_err(failed("wait for"))?;
    if status.success() {
        return Ok(());
    }
    let mut output = Vec::new();
    let read = errors
        .rewind()
        .and_then(|()| errors.take(MAX_OUTPUT).read_to_end(&mut output));
    read.map_err(failed("listen to"))?;
    Err(HookFailure::Failed {
        path: hook.path.clone(),
        status,
        output: String::from_utf8_lossy(&output).trim().to_owned(),
    })
}

/// A file in memory with this content, at its start.
fn memory_file(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    let pidfd = process::pidfd_open(child.id() as i32)?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            name: "poststop hook #0".into(),
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![("A".into(), "1".into())],
            timeout: timeout.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_hook_gets_its_state_and_only_its_environment() {
        run(
            &[hook(
                r#"test "$(cat)" = state && test "$PWD" = /tmp && test "$A" = 1 && test -z "$HOME""#,
                Some(10),
            )],
            b"state",
            Path::new("/tmp"),
        )
        .unwrap();
    }

    #[test]
    fn a_failure_names_the_hook_and_says_what_it_said() {
        let error = run(
            &[hook("exit 0", None), hook("echo why >&2; exit 3", None)],
            b"",
            Path::new("/no/such"),
        )
        .unwrap_err();
        assert_eq!(
            LaunchError::from(error).to_string(),
            "hook: error running poststop hook #0: hook `/bin/sh` failed (exit status: 3): why"
        );
    }

    #[test]
    fn a_hook_that_stays_is_killed() {
        let error = run(&[hook("exec sleep 60", Some(1))], b"", Path::new("/")).unwrap_err();
        assert!(
            matches!(error.failure, HookFailure::Timeout { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_hook_that_reads_nothing_or_says_much_or_leaves_a_child_is_not_waited_for() {
        let state = vec![b' '; 1 << 20];
        run(&[hook("exit 0", None)], &state, Path::new("/")).unwrap();
        let talkative = "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1";
        let error = run(&[hook(talkative, None)], b"", Path::new("/")).unwrap_err();
        assert!(error.failure.to_string().len() < 5000);
        run(&[hook("sleep 5 & exit 0", Some(1))], b"", Path::new("/")).unwrap();
    }

    #[test]
    fn where_all_must_run_each_failure_is_told() {
        let folder = std::env::temp_dir().join(format!("berth-hook-{}", std::process::id()));
        let mark = format!("touch {}", folder.display());
        let all = [
            hook("exit 1", None),
            hook(&mark, None),
            hook("exit 2", None),
        ];
        assert_eq!(run_all(&all, b"", Path::new("/")).len(), 2);
        std::fs::remove_file(folder).unwrap();
    }
}
