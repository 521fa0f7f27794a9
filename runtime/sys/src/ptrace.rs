//! Holding a process at the end of its next execve, before its program's first instruction
//! (ptrace(2): `PTRACE_SEIZE` with `PTRACE_O_TRACEEXEC` and `PTRACE_O_EXITKILL`).
//!
//! At that stop credentials, capabilities, seccomp filters, the security label and the descriptors
//! are what the program starts with; nothing of its own has run. All calls for one [`Seized`] must
//! come from the thread that seized it (ptrace(2): a tracer is a thread).

use std::io;
use std::time::{Duration, Instant};

use crate::seccomp::Instruction;

/// How the C library spells a request's type.
#[cfg(target_env = "gnu")]
type Request = libc::c_uint;
#[cfg(not(target_env = "gnu"))]
type Request = libc::c_int;

/// `PTRACE_EVENT_STOP` of linux/ptrace.h, which libc defines for fewer targets.
const EVENT_STOP: i32 = 128;
/// `PTRACE_SECCOMP_GET_FILTER` of linux/ptrace.h (Linux 4.4, with CONFIG_CHECKPOINT_RESTORE).
const SECCOMP_GET_FILTER: Request = 0x420c;
/// How long to wait for a stop without sleeping; it usually comes within 0.1 ms of its announcement.
const SPIN: Duration = Duration::from_micros(300);
/// Between two looks after that.
const PAUSE: Duration = Duration::from_micros(100);

/// What a seized process has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is held at the end of an execve.
    Exec,
    /// It has ended; whoever is its parent still has to collect it.
    Ended,
}

/// A process that is traced by the calling thread. Dropping it kills the process, as the death of the
/// tracer does: only [`Seized::detach`] lets it go.
#[derive(Debug)]
pub struct Seized {
    pid: i32,
    attached: bool,
}

/// Seizes a process. `EPERM` where the system refuses: no `CAP_SYS_PTRACE` over its user namespace,
/// Yama, another security module, or somebody else traces it.
pub fn seize(pid: i32) -> io::Result<Seized> {
    let options = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_EXITKILL;
    request(libc::PTRACE_SEIZE, pid, 0, options as usize)?;
    Ok(Seized {
        pid,
        attached: true,
    })
}

impl Seized {
    /// Looks whether the process has stopped or ended. A signal on its way to it is passed on, a stop
    /// by job control is left to last, and neither is told.
    pub fn look(&self) -> io::Result<Option<Stop>> {
        let Some((code, status)) = changed(self.pid)? else {
            return Ok(None);
        };
        if code != libc::CLD_TRAPPED {
            return Ok(Some(Stop::Ended));
        }
        let (event, signal) = (status >> 8, status & 0xff);
        let resumed = match event {
            libc::PTRACE_EVENT_EXEC => return Ok(Some(Stop::Exec)),
            EVENT_STOP if is_stopping(signal) => request(libc::PTRACE_LISTEN, self.pid, 0, 0),
            EVENT_STOP => request(libc::PTRACE_CONT, self.pid, 0, 0),
            _ => request(libc::PTRACE_CONT, self.pid, 0, signal as usize),
        };
        match resumed {
            // Killed meanwhile: the next look tells its end.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            resumed => resumed.map(|()| None),
        }
    }

    /// Waits until the process has stopped at an execve or ended; `TimedOut` when it has not by then.
    pub fn wait(&self, limit: Duration) -> io::Result<Stop> {
        let start = Instant::now();
        loop {
            if let Some(stop) = self.look()? {
                return Ok(stop);
            }
            match start.elapsed() {
                waited if waited > limit => return Err(io::ErrorKind::TimedOut.into()),
                waited if waited > SPIN => std::thread::sleep(PAUSE),
                _ => std::thread::yield_now(),
            }
        }
    }

    /// The seccomp filter number `index` of the stopped process, from 0, as it was loaded; `None` when
    /// there are not so many. Needs `CAP_SYS_ADMIN` and no filter on the caller itself (`EACCES`).
    pub fn filter(&self, index: usize) -> io::Result<Option<Vec<Instruction>>> {
        let Some(length) = self.filter_into(index, &mut [])? else {
            return Ok(None);
        };
        let nothing = Instruction {
            code: 0,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let mut program = vec![nothing; length];
        self.filter_into(index, &mut program)?;
        Ok(Some(program))
    }

    /// The length of the filter, which is written to `buffer` unless that is empty.
    fn filter_into(&self, index: usize, buffer: &mut [Instruction]) -> io::Result<Option<usize>> {
        let place = match buffer {
            [] => std::ptr::null_mut(), // ptrace(2): only the length is told
            buffer => buffer.as_mut_ptr().cast::<libc::c_void>(),
        };
        // SAFETY: the kernel writes as many instructions as it told before of this filter, which a
        // stopped process cannot change, to a buffer of that length, or none; Instruction has the
        // layout of sock_filter, and the buffer outlives the call.
        let length = unsafe { libc::ptrace(SECCOMP_GET_FILTER, self.pid, index, place) };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Lets the stopped process go on, untraced.
    pub fn detach(mut self) -> io::Result<()> {
        let released = request(libc::PTRACE_DETACH, self.pid, 0, 0);
        self.attached = released.is_err();
        released
    }
}

impl Drop for Seized {
    fn drop(&mut self) {
        if self.attached {
            // Its number is its own as long as it is traced; ESRCH: it has ended.
            if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn is_stopping(signal: i32) -> bool {
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal)
}

/// `si_code` and `si_status` of what has become of a child or tracee, left where it is for its parent.
fn changed(pid: i32) -> io::Result<Option<(i32, i32)>> {
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG | libc::__WALL;
    // SAFETY: `info` is writable memory of the size waitid(2) fills.
    let rc = unsafe { libc::waitid(libc::P_PID, pid as u32, info.as_mut_ptr(), options) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid siginfo_t, and the kernel wrote a whole one over them.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid filled the SIGCHLD member of the union, or left zeroes, which read as pid 0.
    if unsafe { info.si_pid() } == 0 {
        return Ok(None);
    }
    // SAFETY: as above; si_status belongs to the same member.
    Ok(Some((info.si_code, unsafe { info.si_status() })))
}

/// A request whose two arguments are numbers.
fn request(what: Request, pid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: only requests whose arguments are numbers come here (SEIZE, CONT, LISTEN, DETACH): the
    // kernel neither reads nor writes memory of ours.
    let rc = unsafe { libc::ptrace(what, pid, address, data) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Child, Command, Stdio};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A shell that reads a line, then executes `cat`. Own children need no privilege to be traced.
    fn waiting() -> Child {
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; read line; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Else its own execve might be the one to be seen.
        let mut ready = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut ready)
            .unwrap();
        child
    }

    fn line(child: &mut Child) {
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"go\nrest").unwrap();
    }

    #[test]
    fn a_process_is_held_at_its_execve_and_goes_on_after() {
        let mut child = waiting();
        let pid = child.id().cast_signed();
        let seized = seize(pid).unwrap();
        assert_eq!(seized.look().unwrap(), None);
        line(&mut child);
        assert_eq!(seized.wait(LIMIT).unwrap(), Stop::Exec);
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(arguments, b"cat\0");
        seized.detach().unwrap();
        let mut text = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(text, "rest");
    }

    #[test]
    fn signals_reach_a_seized_process() {
        let mut child = waiting();
        let pid = child.id().cast_signed();
        let seized = seize(pid).unwrap();
        let process = rustix::process::Pid::from_raw(pid).unwrap();
        for signal in [rustix::process::Signal::STOP, rustix::process::Signal::CONT] {
            rustix::process::kill_process(process, signal).unwrap();
            for _ in 0..20 {
                assert_eq!(seized.look().unwrap(), None);
                std::thread::sleep(PAUSE);
            }
        }
        line(&mut child);
        assert_eq!(seized.wait(LIMIT).unwrap(), Stop::Exec);
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        assert_eq!(seized.wait(LIMIT).unwrap(), Stop::Ended);
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(9)
        );
    }

    #[test]
    fn an_execve_that_does_not_come_is_told() {
        let mut child = waiting();
        let seized = seize(child.id().cast_signed()).unwrap();
        let late = seized.wait(Duration::from_millis(2)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(seized);
        let end = std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap());
        assert_eq!(end, Some(9), "what is not let go does not go on");
    }
}
