//! Staying with a process: signals go to it, a terminal is relayed, its end is awaited.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use berth_oci::launch::Running;
use berth_sys::signal::{Blocked, SignalFd};
use berth_sys::{process, pty};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};

use super::Failure;

/// Signals that are passed on; the others keep their meaning for this process.
const FORWARDED: [i32; 8] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
    libc::SIGCONT,
];

/// The caller's side of a running process.
pub(super) struct Session {
    signals: SignalFd,
    _blocked: Blocked,
    terminal: Option<Relay>,
}

impl Session {
    /// Prepares to stay; `master` is the process's terminal, if it has one.
    pub(super) fn open(master: Option<OwnedFd>) -> Result<Session, Failure> {
        let failed = || Failure::io("watch signals");
        let blocked = Blocked::block(&FORWARDED).map_err(failed())?;
        let signals = SignalFd::new(&blocked).map_err(failed())?;
        let terminal = master
            .map(Relay::open)
            .transpose()
            .map_err(Failure::io("relay the terminal"))?;
        Ok(Session {
            signals,
            _blocked: blocked,
            terminal,
        })
    }

    /// Waits for the end of the process; returns its exit code, 128 + n after signal n.
    pub(super) fn wait(mut self, running: &Running) -> Result<i32, Failure> {
        loop {
            self.turn(running).map_err(Failure::io("relay"))?;
            if let Some(end) =
                process::try_wait(running).map_err(Failure::io("wait for the process"))?
            {
                if let Some(relay) = &mut self.terminal {
                    relay.drain();
                }
                return Ok(end.code());
            }
        }
    }

    fn turn(&mut self, running: &Running) -> io::Result<()> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(running.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
        ];
        let stdin = io::stdin();
        if let Some(relay) = &self.terminal {
            if relay.master_open {
                fds.push(PollFd::from_borrowed_fd(
                    relay.master.as_fd(),
                    PollFlags::IN,
                ));
            }
            if relay.stdin_open {
                fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        while let Some(signal) = self.signals.next()? {
            match &self.terminal {
                Some(relay) if signal == libc::SIGWINCH => relay.resize(),
                // ESRCH: it has just ended, which the next turn sees.
                _ => drop(process::pidfd_send_signal(running, signal)),
            }
        }
        if let Some(relay) = &mut self.terminal {
            relay.pump(&ready[2..]);
        }
        Ok(())
    }
}

/// Bytes between this process's terminal and the container's.
struct Relay {
    master: OwnedFd,
    master_open: bool,
    stdin_open: bool,
    saved: Option<Termios>,
}

impl Relay {
    fn open(master: OwnedFd) -> io::Result<Relay> {
        let mut saved = None;
        if io::stdin().is_terminal() {
            let before = rustix::termios::tcgetattr(io::stdin())?;
            let mut raw = before.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
            saved = Some(before);
        }
        let relay = Relay {
            master,
            master_open: true,
            stdin_open: true,
            saved,
        };
        relay.resize();
        Ok(relay)
    }

    /// The container's terminal takes the size of this one.
    fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stdin()) {
            let _ = pty::resize(&self.master, size.ws_row, size.ws_col);
        }
    }

    /// `ready` holds the master if it is open, then stdin if it is.
    fn pump(&mut self, ready: &[bool]) {
        let mut ready = ready.iter().copied();
        if self.master_open && ready.next().unwrap_or(false) {
            self.master_open = copy(self.master.as_fd(), io::stdout().as_fd());
        }
        if self.stdin_open && ready.next().unwrap_or(false) {
            self.stdin_open = copy(io::stdin().as_fd(), self.master.as_fd());
        }
    }

    /// What the process wrote last.
    fn drain(&mut self) {
        let _ = rustix::io::ioctl_fionbio(&self.master, true);
        while self.master_open {
            self.master_open = copy(self.master.as_fd(), io::stdout().as_fd());
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, saved);
        }
    }
}

/// Copies what can be read once; false when there will be no more.
fn copy(from: impl AsFd, to: impl AsFd) -> bool {
    let mut buffer = [0u8; 16 * 1024];
    match rustix::io::read(from, &mut buffer) {
        Ok(0) => false,
        Ok(count) => write_all(to, &buffer[..count]),
        Err(Errno::INTR) => true,
        Err(_) => false, // EIO: the last slave was closed
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}
