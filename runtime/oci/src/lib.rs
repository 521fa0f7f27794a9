//! The OCI runtime: a spec becomes a [`plan::Plan`], a plan becomes a container.
//!
//! The parent plans, the child acts: everything that can be parsed, looked up or refused is done
//! by [`plan::Plan::from_spec`] before a process is made; the child of [`launch`] is a list of
//! steps. No threads and no async runtime are used.

pub mod capability;
pub mod cgroup;
pub mod crash;
pub mod fault;
#[cfg(test)]
mod fuzz;
pub mod hooks;
pub mod launch;
mod lsm;
pub mod plan;
mod procfs;
pub mod record;
mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod state;
