//! Seccomp: from the spec's profile to one BPF program for x86_64, x86 and x32, and the default profile.
//!
//! Own emitter: a profile may mix any actions per system call and covers three calling conventions,
//! two of which share an architecture number.

mod emit;
mod profile;
#[cfg(test)]
mod property;
mod rules;
mod syscalls;
#[cfg(test)]
mod tests;

pub use profile::default_profile;

use berth_sys::seccomp::flag;

use crate::plan::{Filter, Listener};
use crate::spec::config::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFlag};

/// Why a profile cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Every call would wait, that by which the listener is reached included.
    #[error("SCMP_ACT_NOTIFY cannot be {0}")]
    Notify(&'static str),
    /// A field which only makes sense with another.
    #[error("{0} needs {1}")]
    Needs(&'static str, &'static str),
    /// An error number for an action that returns none.
    #[error("{0} returns no error number")]
    NoErrno(LinuxSeccompAction),
    /// An argument index above 5.
    #[error("argument index {0} is not within 0 … 5")]
    ArgumentIndex(u64),
    /// More than the kernel takes.
    #[error("the program has {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

/// Compiles a profile. Names that no architecture knows are skipped, as libseccomp does: profiles
/// are written for newer kernels than the one they meet.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, CompileError> {
    let listener = listener(profile)?;
    let rules = rules::read(profile)?;
    let program = emit::program(&rules)?;
    let mut flags = 0;
    for word in &profile.flags {
        flags |= match word {
            LinuxSeccompFlag::Log => flag::LOG,
            LinuxSeccompFlag::Tsync => flag::TSYNC,
            LinuxSeccompFlag::SpecAllow => flag::SPEC_ALLOW,
            LinuxSeccompFlag::WaitKillableRecv => flag::WAIT_KILLABLE_RECV,
        };
    }
    if listener.is_none() {
        flags &= !flag::WAIT_KILLABLE_RECV; // about calls that wait for a listener: there are none
    }
    Ok(Filter {
        program,
        flags,
        listener,
    })
}

/// Where notifications go, if there are any. Whose they are, the plan says.
fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, CompileError> {
    let notifies = |action| action == LinuxSeccompAction::Notify;
    let path = Some(profile.listener_path.clone()).filter(|path| !path.as_os_str().is_empty());
    if path.is_none() && !profile.listener_metadata.is_empty() {
        return Err(CompileError::Needs("listenerMetadata", "listenerPath"));
    }
    if notifies(profile.default_action) {
        return Err(CompileError::Notify("the default action"));
    }
    let mut rules = profile.syscalls.iter();
    let mut notified = rules
        .by_ref()
        .filter(|rule| notifies(rule.action))
        .peekable();
    if notified.peek().is_none() {
        return Ok(None);
    }
    if notified.any(|rule| rule.names.iter().any(|name| name == "write")) {
        return Err(CompileError::Notify("used for `write`"));
    }
    let path = path.ok_or(CompileError::Needs("SCMP_ACT_NOTIFY", "listenerPath"))?;
    if !path.is_absolute() {
        return Err(CompileError::Needs("listenerPath", "an absolute path"));
    }
    Ok(Some(Listener {
        path,
        metadata: profile.listener_metadata.clone(),
        state: serde_json::Value::Null,
    }))
}
