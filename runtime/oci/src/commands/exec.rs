//! `exec`: a further process in a running container.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_oci::launch::{self, ProcessIo};
use berth_oci::plan::ExecPlan;
use berth_oci::spec;
use berth_oci::state::{Status, Store};
use oci_spec::runtime::{Process, Spec};

use super::{Failure, create, foreground};
use crate::cli::ExecArgs;
use crate::log::Log;

pub(super) fn run(store: &Store, args: &ExecArgs, _log: &Log) -> Result<ExitCode, Failure> {
    let record = store.load(&args.id)?;
    let status = store.status(&record)?;
    if !matches!(status, Status::Running | Status::Created) {
        return Err(Failure::WrongStatus {
            verb: "exec in",
            id: args.id.clone(),
            status,
        });
    }
    let spec = spec::parse(
        &store.get(&args.id, "config.json")?,
        Path::new("config.json"),
    )?;
    let process = process(args, &spec)?;
    let mut plan = ExecPlan::new(&spec, &process, record.pid, record.cgroup.clone())?;
    plan.process.preserve_fds = args.preserve_fds;
    let io = if plan.process.terminal {
        ProcessIo::Terminal { size: None }
    } else {
        create::own_streams()?
    };
    if plan.process.terminal && args.detach && args.console_socket.is_none() {
        return Err(Failure::Usage(
            "a detached terminal needs --console-socket".into(),
        ));
    }
    let (running, mut console) = launch::exec(&plan, io).map_err(Failure::Exec)?;
    if let Some(path) = &args.console_socket {
        let master = console
            .take()
            .ok_or_else(|| Failure::Usage("--console-socket without a terminal".into()))?;
        let action = format!("send the terminal to `{}`", path.display());
        create::send_console(path, &master).map_err(Failure::io(action))?;
    }
    if let Some(path) = &args.pid_file {
        create::write_pid_file(path, running.pid)?;
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = foreground::Session::open(console)?.wait(&running)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The process of `--process`, or the container's own with what the flags change.
fn process(args: &ExecArgs, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = &args.process {
        return Ok(spec::load_process(path)?);
    }
    let missing = || Failure::Usage("the container's spec has no process".into());
    let mut process = spec.process().clone().ok_or_else(missing)?;
    if args.command.is_empty() {
        return Err(Failure::Usage("no command given".into()));
    }
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    process.set_console_size(None);
    if let Some(cwd) = &args.cwd {
        process.set_cwd(PathBuf::from(cwd));
    }
    let env = process
        .env()
        .iter()
        .flatten()
        .chain(&args.env)
        .cloned()
        .collect();
    process.set_env(Some(env));
    if let Some(user) = &args.user {
        let (uid, gid) =
            parse_user(user).ok_or_else(|| Failure::Usage(format!("`{user}` is not UID[:GID]")))?;
        process.user_mut().set_uid(uid);
        if let Some(gid) = gid {
            process.user_mut().set_gid(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        process
            .user_mut()
            .set_additional_gids(Some(args.additional_gids.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    Ok(process)
}

/// `UID` or `UID:GID`, plain decimal numbers below 2³² − 1 and nothing else (CVE-2026-30892).
fn parse_user(text: &str) -> Option<(u32, Option<u32>)> {
    let number = |part: &str| -> Option<u32> {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|id| digits && *id != u32::MAX)
    };
    match text.split_once(':') {
        Some((uid, gid)) => Some((number(uid)?, Some(number(gid)?))),
        None => Some((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_user;

    #[test]
    fn a_user_is_a_plain_number_or_refused() {
        assert_eq!(parse_user("1"), Some((1, None)));
        assert_eq!(parse_user("1:2"), Some((1, Some(2))));
        assert_eq!(parse_user("4294967294"), Some((4_294_967_294, None)));
        for text in [
            "",
            "+1",
            " 1",
            "-1",
            "0x0",
            "1root",
            "4294967295",
            "4294967296",
            "1:",
            ":1",
            "1:2:3",
            "１",
        ] {
            assert_eq!(parse_user(text), None, "{text}");
        }
    }
}
