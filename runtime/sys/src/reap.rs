//! Collecting children of the calling process (waitpid(2), prctl(2) PR_SET_CHILD_SUBREAPER).

use std::io;

use rustix::process::{Pid, WaitOptions};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It called exit with this status, 0–255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// Makes the calling process the parent of all its descendants' orphans.
pub fn become_subreaper() -> io::Result<()> {
    // Any value but zero switches it on.
    Ok(rustix::process::set_child_subreaper(Pid::from_raw(1))?)
}

/// Collects one ended child, whichever; `None` when no child has ended or there is no child.
pub fn next_ended() -> io::Result<Option<(i32, Ended)>> {
    collect(None)
}

/// Collects the child `pid` if it has ended.
pub fn ended(pid: i32) -> io::Result<Option<Ended>> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from(rustix::io::Errno::INVAL))?;
    Ok(collect(Some(pid))?.map(|(_, ended)| ended))
}

fn collect(which: Option<Pid>) -> io::Result<Option<(i32, Ended)>> {
    loop {
        let found = match which {
            Some(pid) => rustix::process::waitpid(Some(pid), WaitOptions::NOHANG),
            None => rustix::process::wait(WaitOptions::NOHANG),
        };
        let (pid, status) = match found {
            Ok(Some(found)) => found,
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let pid = pid.as_raw_pid();
        if let Some(code) = status.exit_status() {
            return Ok(Some((pid, Ended::Code(code))));
        }
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some((pid, Ended::Signal(signal))));
        }
        // A stop or continue, which was not asked for, says nothing about the end.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_collected_once_with_its_status() {
        #[expect(
            clippy::zombie_processes,
            reason = "the function under test collects it"
        )]
        let child = std::process::Command::new("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        loop {
            if let Some(end) = ended(pid).unwrap() {
                assert_eq!(end, Ended::Code(7));
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(ended(pid).unwrap(), None);
    }
}
