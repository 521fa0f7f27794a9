//! Safe, typed wrappers over the Linux system calls that berth needs.
//!
//! The only crate of the workspace that may say `unsafe`. One topic a module;
//! whoever needs another system call adds a small module, not a dependency.

pub mod bpf;
pub mod crash;
pub mod creds;
pub mod fork_alloc;
pub mod heap;
pub mod idmap;
pub mod memory;
pub mod mount;
pub mod net;
pub mod notify;
pub mod ns;
pub mod process;
pub mod program;
pub mod ptrace;
pub mod pty;
pub mod reap;
pub mod root;
pub mod sched;
pub mod seccomp;
pub mod seqpacket;
pub mod signal;
