//! Stage 5 of the child: the seccomp filter and the program.
//!
//! On entry: confined, told to start. On exit there is none: execve succeeds, which closes the
//! channel, or a [`LaunchError`] goes back. The filter is loaded after everything that may need a
//! system call which it forbids; only close_range, capset and execve come later.

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::creds::{self, CapabilityMasks};
use berth_sys::{process, seccomp};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode};
use rustix::io::Errno;

use super::error::At;
use super::join::run_hooks;
use super::protocol::Channel;
use super::{LaunchError, Stage, notify};
use crate::plan::{Filter, Plan, ProcessPlan};
use crate::state::Status;

/// The search path of a process whose environment has no PATH (as execvp(3) of glibc).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The child that was told to start.
#[derive(Debug)]
pub(super) struct Started<'a> {
    /// The container whose first process this is; none for a further one.
    pub(super) container: Option<&'a Plan>,
    pub(super) process: &'a ProcessPlan,
    pub(super) program: CString,
    pub(super) last: Option<CapabilityMasks>,
    pub(super) channel: Channel,
}

impl Started<'_> {
    /// Returns only on failure, with the channel over which to say so.
    pub(super) fn exec(self) -> (LaunchError, Channel) {
        let error = match self.prepare() {
            Err(error) => error,
            Ok(()) => {
                let error = process::execve(&self.program, &self.process.args, &self.process.env);
                // The form in which engines expect it: `exec: "program": reason`.
                let program = format!("{:?}", self.program.to_string_lossy());
                LaunchError::from_io(Stage::Exec, program, &error)
            }
        };
        (error, self.channel)
    }

    fn prepare(&self) -> Result<(), LaunchError> {
        if let Some(plan) = self.container {
            run_hooks(&plan.hooks.start_container, plan, Status::Created)?;
        }
        process::default_signals().at(Stage::Exec, || "reset the signals".into())?;
        rustix::process::umask(Mode::from_raw_mode(self.process.umask));
        process::close_on_exec_from(3 + self.process.preserve_fds)
            .at(Stage::Exec, || "mark descriptors close-on-exec".into())?;
        if let Some(filter) = &self.process.seccomp {
            load_filter(filter, &self.channel)?;
        }
        if let Some(last) = &self.last {
            creds::set_capabilities(last.effective, last.permitted, last.inheritable)
                .at(Stage::Exec, || "set the capabilities".into())?;
        }
        Ok(())
    }
}

fn load_filter(filter: &Filter, channel: &Channel) -> Result<(), LaunchError> {
    match &filter.listener {
        Some(listener) => notify::load(filter, listener, channel),
        None => seccomp::load(&filter.program, filter.flags)
            .at(Stage::Exec, || "load the seccomp filter".into()),
    }
}

/// Finds the program as the process itself will see it: a name without slash is searched in the
/// PATH of its own environment. Done before the start, so that a typo fails `create`.
pub(super) fn find_program(process: &ProcessPlan) -> Result<CString, LaunchError> {
    let name = process.args.first().map_or(c"", CString::as_c_str);
    let wanted = Path::new(OsStr::from_bytes(name.to_bytes()));
    let step = || format!("{:?}", wanted.display().to_string());
    if name.to_bytes().contains(&b'/') {
        executable(wanted).at(Stage::Exec, step)?;
        return Ok(name.to_owned());
    }
    let mut reason = Errno::NOENT;
    for folder in search_path(&process.env) {
        let candidate = folder.join(wanted);
        match executable(&candidate) {
            Ok(()) => {
                return CString::new(candidate.into_os_string().into_encoded_bytes())
                    .map_err(|_| Errno::INVAL)
                    .at(Stage::Exec, step);
            }
            Err(Errno::ACCESS) => reason = Errno::ACCESS,
            Err(_) => {}
        }
    }
    let mut error = LaunchError::from_io(Stage::Exec, step(), &reason.into());
    error.detail = "executable file not found in $PATH".into();
    Err(error)
}

fn search_path(env: &[CString]) -> Vec<PathBuf> {
    let value = env
        .iter()
        .rev()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let value = value.unwrap_or(DEFAULT_PATH.as_bytes());
    value
        .split(|byte| *byte == b':')
        .map(|folder| {
            if folder.is_empty() {
                Path::new(".")
            } else {
                Path::new(OsStr::from_bytes(folder))
            }
        })
        .map(Path::to_owned)
        .collect()
}

fn executable(path: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        FileType::RegularFile => rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS),
        _ => Err(Errno::ACCESS),
    }
}
