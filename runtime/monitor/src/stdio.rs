//! The standard streams of a container: pipes or a terminal, made by the monitor and kept by it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

/// The monitor's ends.
#[derive(Debug, Default)]
pub struct Ends {
    /// Writes to the container's standard input or terminal.
    pub input: Option<OwnedFd>,
    /// Reads its standard output or terminal.
    pub output: Option<OwnedFd>,
    /// Reads its standard error.
    pub error: Option<OwnedFd>,
}

/// The container's ends.
#[derive(Debug)]
pub struct ChildEnds {
    /// Standard input.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// Makes pipes for a container without a terminal; its standard input is the null device unless `stdin`.
///
/// The write ends of the outputs are given to `owner`, so that a program which is not root can open
/// `/dev/stdout`: the kernel checks the pipe's owner there, not that the descriptor is open.
pub fn pipes(stdin: bool, owner: Option<u32>) -> io::Result<(Ends, ChildEnds)> {
    let (output, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (error, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (child_input, input) = if stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        (read, Some(write))
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (rustix::fs::open("/dev/null", flags, Mode::empty())?, None)
    };
    if let Some(uid) = owner {
        let uid = rustix::fs::Uid::from_raw(uid);
        for pipe in [&stdout, &stderr] {
            rustix::fs::fchown(pipe, Some(uid), None)?;
        }
        if stdin {
            rustix::fs::fchown(&child_input, Some(uid), None)?;
        }
    }
    // Only our ends: each end of a pipe has flags of its own.
    for end in [Some(&output), Some(&error), input.as_ref()]
        .into_iter()
        .flatten()
    {
        rustix::io::ioctl_fionbio(end, true)?;
    }
    let ends = Ends {
        input,
        output: Some(output),
        error: Some(error),
    };
    let child = ChildEnds {
        stdin: child_input,
        stdout,
        stderr,
    };
    Ok((ends, child))
}

/// The monitor's ends of a container whose terminal's master is `console`.
pub fn terminal(console: OwnedFd, stdin: bool) -> io::Result<Ends> {
    rustix::io::ioctl_fionbio(&console, true)?;
    let input = if stdin {
        Some(console.try_clone()?)
    } else {
        None
    };
    Ok(Ends {
        input,
        output: Some(console),
        error: None,
    })
}
