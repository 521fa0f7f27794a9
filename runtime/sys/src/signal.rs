//! Signals taken synchronously: blocked, then waited for or read from a descriptor (signal(7), signalfd(2)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signal numbers which the calling thread keeps blocked.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks `signals` in the calling thread; threads made later and programs executed inherit that.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        // SAFETY: `set` was filled by sigemptyset and lives over the call; the old mask is not asked for.
        match unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
        } {
            0 => Ok(Self(set)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Waits for the next signal of the set and returns its number.
    pub fn wait(&self) -> io::Result<i32> {
        loop {
            // SAFETY: the set is initialised and borrowed for the call; a null siginfo is allowed.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.0, std::ptr::null_mut()) };
            if signal >= 0 {
                return Ok(signal);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Unblocks every signal and sets SIGPIPE, which Rust programs start with ignored, to its default:
/// what a program executed from here should find.
pub fn reset_for_exec() -> io::Result<()> {
    let set = set_of(&[])?;
    // SAFETY: `set` is initialised and outlives the call.
    let rc =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    // SAFETY: SIG_DFL installs no handler, so no code of ours can run in signal context.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A non-blocking, close-on-exec signalfd over blocked signals.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Makes the descriptor for the signals of `blocked`.
    pub fn new(blocked: &Blocked) -> io::Result<Self> {
        // SAFETY: -1 asks for a new descriptor; the set is initialised and borrowed for the call.
        let fd = unsafe {
            libc::signalfd(
                -1,
                &raw const blocked.0,
                libc::SFD_NONBLOCK | libc::SFD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd just returned `fd` and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next pending signal's number, `None` when there is none.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut entry = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = std::mem::size_of::<libc::signalfd_siginfo>();
        // SAFETY: `entry` has room for exactly `size` bytes and outlives the call.
        let got = unsafe { libc::read(self.0.as_raw_fd(), entry.as_mut_ptr().cast(), size) };
        if got == size.cast_signed() {
            // SAFETY: the kernel filled the whole structure.
            let entry = unsafe { entry.assume_init() };
            return Ok(Some(entry.ssi_signo.cast_signed()));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set that it is given, whatever was there.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the call above.
    let mut set = unsafe { set.assume_init() };
    for &signal in signals {
        // SAFETY: the set is initialised; an invalid number is reported, not undefined.
        if unsafe { libc::sigaddset(&raw mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor() {
        let blocked = Blocked::block(&[libc::SIGUSR2]).unwrap();
        let fd = SignalFd::new(&blocked).unwrap();
        assert_eq!(fd.next().unwrap(), None);
        // SAFETY: raise to the calling thread, which has the signal blocked.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert_eq!(fd.next().unwrap(), Some(libc::SIGUSR2));
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert_eq!(blocked.wait().unwrap(), libc::SIGUSR2);
    }

    #[test]
    fn an_invalid_number_is_an_error() {
        assert!(Blocked::block(&[-1]).is_err());
    }
}
