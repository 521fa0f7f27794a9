//! `kill`: a signal to a container.

use std::process::ExitCode;

use berth_oci::cgroup::Cgroup;
use berth_oci::spec::config::LinuxNamespaceType;
use berth_oci::state::Store;
use berth_sys::{crash_point, process};

use super::{Failure, kept_spec};
use crate::cli::KillArgs;

pub(super) fn run(store: &Store, args: &KillArgs) -> Result<ExitCode, Failure> {
    let signal = parse_signal(&args.signal)?;
    let record = store.load(&args.id)?;
    let init = record
        .init()
        .map_err(Failure::io("find the container's init"))?;
    // Without a PID namespace of its own the end of init does not end the others, so SIGKILL means
    // them too; without init nobody but --all is left to be meant.
    let everything =
        args.all || (init.is_some() && signal == libc::SIGKILL && shares_pids(store, &args.id));
    if everything && let Some(path) = &record.cgroup {
        match Cgroup::open(path) {
            Err(error) if error.is_not_found() => {} // a stopped container whose group is gone
            group => signal_all(&group?, signal)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    match init {
        Some(init) => process::pidfd_send_signal(init, signal)
            .map_err(Failure::io(format!("signal container `{}`", args.id)))?,
        None if args.all => {}
        None => {
            let status = store.status(&record)?;
            return Err(Failure::wrong_status("kill", &args.id, status));
        }
    }
    crash_point!("kill: signal sent");
    Ok(ExitCode::SUCCESS)
}

/// Whether the container's processes may not have a PID namespace of their own; a spec that cannot be
/// read says nothing else.
fn shares_pids(store: &Store, id: &str) -> bool {
    kept_spec(store, id).map_or(true, |spec| {
        let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
        let pids = LinuxNamespaceType::Pid;
        !namespaces.any(|one| one.kind == pids && one.path.as_os_str().is_empty())
    })
}

fn signal_all(group: &Cgroup, signal: i32) -> Result<(), Failure> {
    if signal == libc::SIGKILL {
        return Ok(group.kill()?);
    }
    for pid in group.all_processes()? {
        // A process that ends between the two calls needs no signal.
        if let Ok(pidfd) = process::pidfd_open(pid) {
            drop(process::pidfd_send_signal(pidfd, signal));
        }
    }
    Ok(())
}

/// A signal by number, 0 to ask whether init is there (kill(2)), or by name with or without `SIG`, in any case.
fn parse_signal(text: &str) -> Result<i32, Failure> {
    let unknown = || Failure::Usage(format!("`{text}` is not a signal"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.parse().map_err(|_| unknown())?
        };
        return if (0..=30).contains(&offset) {
            Ok(34 + offset)
        } else {
            Err(unknown())
        };
    }
    if name == "RTMAX" {
        return Ok(64);
    }
    let known: nix::sys::signal::Signal = format!("SIG{name}").parse().map_err(|_| unknown())?;
    Ok(known as i32)
}

#[cfg(test)]
mod tests {
    use super::parse_signal;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("0", 0),
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+3", 37),
            ("64", 64),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["65", "-1", "SIGNOTHING", "", "9x", "RTMIN+31"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
