//! What no runtime can do without: the system calls of a container alone, made by a bare program
//! (runtime/sys/examples/bare.rs).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::hierarchy;
use crate::{dist, process};

/// The program, and the group of cgroup v2 that it runs in.
pub struct Floor {
    program: PathBuf,
    group: PathBuf,
}

impl Floor {
    /// Builds the program.
    pub fn build() -> Result<Floor> {
        let programs = dist::build_programs(dist::static_command("static")?.args([
            "--package",
            "berth-sys",
            "--example",
            "bare",
        ]))?;
        let program = programs.into_iter().next();
        Ok(Floor {
            program: program.context("the build made no `bare`")?,
            group: Path::new(hierarchy::PLACE).join(format!("berth-bare-{}", std::process::id())),
        })
    }

    /// A container of `/bin/true`.
    pub fn run(&self, rootfs: &Path) -> Result<()> {
        self.call("run", &rootfs.display().to_string())
    }

    /// `/bin/true` in the namespaces of a process, in a group that lasts.
    pub fn exec(&self, pid: i32) -> Result<()> {
        self.call("exec", &pid.to_string())
    }

    /// Makes the group for [`Floor::exec`].
    pub fn with_group<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        fs::create_dir(&self.group).context("cannot make a cgroup")?;
        let done = act();
        fs::remove_dir(&self.group).context("cannot remove a cgroup")?;
        done
    }

    fn call(&self, verb: &str, what: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args([verb, what]).arg(&self.group);
        process::run(command.stdin(Stdio::null()))
    }
}
