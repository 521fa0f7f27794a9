//! `exec`: a further process in a running container.

use std::mem::ManuallyDrop;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use berth_oci::capability::{self, CapabilitySet};
use berth_oci::cgroup::Cgroup;
use berth_oci::launch::ProcessIo;
use berth_oci::plan::ExecPlan;
use berth_oci::spec::{
    self,
    config::{Process, Spec},
};
use berth_oci::state::{Record, Status, Store};
use berth_sys::crash_point;

use super::handover::{check_preserved, own_streams, send_console, write_pid_file};
use super::record::Records;
use super::{Failure, foreground, home, kept_spec};
use crate::cli::ExecArgs;
use crate::log::Log;

pub(super) fn run(
    store: &Store,
    args: &ExecArgs,
    records: &mut Records,
    log: &Log,
) -> Result<ExitCode, Failure> {
    exec(store, args, records, log).map_err(|failure| Failure::Exec(Box::new(failure)))
}

fn exec(
    store: &Store,
    args: &ExecArgs,
    records: &mut Records,
    log: &Log,
) -> Result<ExitCode, Failure> {
    let record = store.load(&args.id)?;
    let status = store.status(&record)?;
    let frozen_is_fine = args.ignore_paused && status == Status::Paused;
    if !matches!(status, Status::Running | Status::Created) && !frozen_is_fine {
        return Err(Failure::wrong_status("exec in", &args.id, status));
    }
    // Never freed: this process ends soon, and to free memory after the clone is to copy its pages.
    let spec = ManuallyDrop::new(kept_spec(store, &args.id)?);
    let process = ManuallyDrop::new(process(args, &spec, log)?);
    let plan = ExecPlan::new(&spec, &process, record.pid, group(args, &record)?)?;
    let mut plan = ManuallyDrop::new(plan);
    plan.name_container(&record.id, &record.bundle);
    plan.cgroup_is_exact = args.cgroup.is_some();
    plan.wait_while_frozen = args.ignore_paused;
    home::add(
        &mut plan.process,
        Path::new(&format!("/proc/{}/root", record.pid)),
    );
    check_preserved(0, args.preserve_fds)?;
    plan.process.preserve_fds = args.preserve_fds;
    plan.process.new_keyring = !record.no_new_keyring;
    let terminal = plan.process.terminal;
    if terminal && args.detach && args.console_socket.is_none() {
        return Err(Failure::Usage(
            "a detached terminal needs --console-socket".into(),
        ));
    }
    if !terminal && args.console_socket.is_some() {
        return Err(Failure::Usage("--console-socket without a terminal".into()));
    }
    let io = if terminal {
        ProcessIo::Terminal { size: None }
    } else {
        own_streams()?
    };
    let (running, mut console) = records.exec(&plan, io, &args.id)?;
    crash_point!("exec: program executed");
    log.debug(|| format!("process {} in container `{}`", running.pid, args.id));
    if let Some((path, master)) = args
        .console_socket
        .as_ref()
        .zip(console.take_if(|_| args.console_socket.is_some()))
    {
        let action = format!("send the terminal to `{}`", path.display());
        send_console(path, &master).map_err(Failure::io(action))?;
    }
    if let Some(path) = &args.pid_file {
        write_pid_file(path, running.pid)?;
        crash_point!("exec: pid file written");
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let code = foreground::Session::open(console)?.wait(&running)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The cgroup to be born into: the container's, or an existing one below it (`--cgroup`).
fn group(args: &ExecArgs, record: &Record) -> Result<Option<PathBuf>, Failure> {
    let Some(below) = &args.cgroup else {
        return Ok(record.cgroup.clone());
    };
    let refused = |reason: &str| Failure::Usage(format!("--cgroup `{}` {reason}", below.display()));
    if below.to_string_lossy().contains(':') {
        return Err(refused(
            "names a controller, which cgroup v2 has no separate groups for",
        ));
    }
    if below.components().any(|part| part == Component::ParentDir) {
        return Err(refused("contains `..`"));
    }
    let own = record
        .cgroup
        .as_ref()
        .ok_or_else(|| refused("needs a container with a cgroup"))?;
    let inside = below
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    let path = own.join(inside.collect::<PathBuf>());
    Cgroup::open(&path)?;
    Ok(Some(path))
}

/// The process of `--process`, or the container's own with what the flags change.
fn process(args: &ExecArgs, spec: &Spec, log: &Log) -> Result<Process, Failure> {
    if let Some(path) = &args.process {
        let (process, ignored) = spec::load_process_of_engine(path)?;
        log.warn_of_ignored("--process", &ignored);
        return Ok(process);
    }
    let missing = || Failure::Usage("the container's spec has no process".into());
    let mut process = spec.process.clone().ok_or_else(missing)?;
    if args.command.is_empty() {
        return Err(Failure::Usage("no command given".into()));
    }
    process.args.clone_from(&args.command);
    process.terminal = args.tty;
    process.console_size = None;
    if let Some(cwd) = &args.cwd {
        process.cwd = PathBuf::from(cwd);
    }
    process.env.extend_from_slice(&args.env);
    if let Some(user) = &args.user {
        let (uid, gid) =
            parse_user(user).ok_or_else(|| Failure::Usage(format!("`{user}` is not UID[:GID]")))?;
        process.user.uid = uid;
        if let Some(gid) = gid {
            process.user.gid = gid;
        }
    }
    if !args.additional_gids.is_empty() {
        process
            .user
            .additional_gids
            .clone_from(&args.additional_gids);
    }
    process.no_new_privileges |= args.no_new_privs;
    if let Some(profile) = &args.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &args.process_label {
        process.selinux_label.clone_from(label);
    }
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

/// Adds to the sets that a program of root starts with. The ambient set, which would outlast a
/// change of user, and the inheritable one stay as they are (CVE-2022-29162).
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = CapabilitySet::default();
    for name in names {
        let unknown = || Failure::Usage(format!("`{name}` is not a capability"));
        added |= capability::of_name(name).ok_or_else(unknown)?;
    }
    let sets = process.capabilities.get_or_insert_default();
    for set in [&mut sets.bounding, &mut sets.permitted, &mut sets.effective] {
        *set |= added;
    }
    Ok(())
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
