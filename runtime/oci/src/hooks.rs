//! Running the spec's hooks: the state on standard input, an environment of their own, a time limit.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::plan::{Hook, Plan};

/// How much of a failed hook's error output is kept, in bytes.
const MAX_OUTPUT: u64 = 4096;

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
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

/// The state object which a hook reads (runtime.md, "State").
pub fn state(plan: &Plan, status: &str, pid: u32) -> Vec<u8> {
    let state = serde_json::json!({
        "ociVersion": plan.oci_version,
        "id": plan.id,
        "status": status,
        "pid": pid,
        "bundle": plan.bundle,
        "annotations": plan.annotations,
    });
    state.to_string().into_bytes()
}

/// Runs hooks in order; the first failure ends it.
pub fn run(hooks: &[Hook], state: &[u8]) -> Result<(), HookError> {
    hooks.iter().try_for_each(|hook| run_one(hook, state))
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), HookError> {
    let failed = |action| {
        move |source| HookError::Access {
            action,
            path: hook.path.clone(),
            source,
        }
    };
    let mut command = Command::new(&hook.path);
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(hook.env.iter().map(|(name, value)| (name, value)));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed("execute"))?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(state) {
            // It need not read its state.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(failed("feed")(error));
            }
            _ => drop(input),
        }
    }
    if let Some(limit) = hook.timeout
        && !ends_within(&child, limit).map_err(failed("wait for"))?
    {
        let _ = child.kill();
        let _ = child.wait();
        return Err(HookError::Timeout {
            path: hook.path.clone(),
            limit,
        });
    }
    let mut output = String::new();
    if let Some(errors) = child.stderr.take() {
        // Read before the wait, so that a talkative hook is not stuck; what is no text says nothing.
        let _ = errors.take(MAX_OUTPUT).read_to_string(&mut output);
    }
    let status = child.wait().map_err(failed("wait for"))?;
    if status.success() {
        return Ok(());
    }
    Err(HookError::Failed {
        path: hook.path.clone(),
        status,
        output: output.trim().to_owned(),
    })
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
                r#"test "$(cat)" = state && test "$A" = 1 && test -z "$HOME""#,
                Some(10),
            )],
            b"state",
        )
        .unwrap();
    }

    #[test]
    fn a_failure_names_the_hook_and_says_what_it_said() {
        let error = run(
            &[hook("exit 0", None), hook("echo why >&2; exit 3", None)],
            b"",
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "hook `/bin/sh` failed (exit status: 3): why"
        );
    }

    #[test]
    fn a_hook_that_stays_is_killed() {
        let error = run(&[hook("exec sleep 60", Some(1))], b"").unwrap_err();
        assert!(matches!(error, HookError::Timeout { .. }), "{error}");
    }
}
