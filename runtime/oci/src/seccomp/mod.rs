//! Seccomp: from the spec's profile to one BPF program for x86_64, x86 and x32, and the default profile.
//!
//! Own emitter: a profile may mix any actions per system call and covers three calling conventions,
//! two of which share an architecture number.

mod emit;
mod profile;
mod rules;
mod syscalls;
#[cfg(test)]
mod tests;

pub use profile::default_profile;

use berth_sys::seccomp::flag;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::plan::Filter;

/// Why a profile cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Something which berth does not do yet.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// An argument index above 5.
    #[error("argument index {0} is not within 0 … 5")]
    ArgumentIndex(usize),
    /// More than the kernel takes.
    #[error("the program has {0} instructions, the kernel takes 4096")]
    TooLong(usize),
}

/// Compiles a profile. Names that no architecture knows are skipped, as libseccomp does: profiles
/// are written for newer kernels than the one they meet.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, CompileError> {
    if profile.listener_path().is_some() || profile.listener_metadata().is_some() {
        return Err(CompileError::Unsupported("listenerPath".into()));
    }
    let rules = rules::read(profile)?;
    let program = emit::program(&rules)?;
    let mut flags = 0;
    for word in profile.flags().iter().flatten() {
        flags |= match word {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => flag::LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flag::TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => flag::WAIT_KILLABLE_RECV,
        };
    }
    Ok(Filter { program, flags })
}
