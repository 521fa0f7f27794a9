//! The readiness loop's kernel side: one epoll descriptor and what is watched by it (epoll(7)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::log::Stream;

/// What a readiness report is about. Numbers are never used twice, so a late report finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The listening socket.
    Listener,
    /// The signalfd.
    Signals,
    /// The log thread has reports.
    Logs,
    /// A client's connection.
    Client(u32),
    /// Output of a container.
    Output(u32, Stream),
    /// Standard input of a container.
    Input(u32),
    /// An attachment's standard input.
    AttachInput(u32),
    /// An attachment's output.
    AttachOutput(u32, Stream),
    /// memory.events of a container.
    Memory(u32),
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (1, 0),
            Self::Logs => (2, 0),
            Self::Client(number) => (3, number),
            Self::Output(number, Stream::Stdout) => (4, number),
            Self::Output(number, Stream::Stderr) => (5, number),
            Self::Input(number) => (6, number),
            Self::AttachInput(number) => (7, number),
            Self::AttachOutput(number, Stream::Stdout) => (8, number),
            Self::AttachOutput(number, Stream::Stderr) => (9, number),
            Self::Memory(number) => (10, number),
        };
        (kind << 32) | u64::from(number)
    }

    fn decode(data: u64) -> Option<Self> {
        let number = u32::try_from(data & u64::from(u32::MAX)).ok()?;
        Some(match data >> 32 {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Logs,
            3 => Self::Client(number),
            4 => Self::Output(number, Stream::Stdout),
            5 => Self::Output(number, Stream::Stderr),
            6 => Self::Input(number),
            7 => Self::AttachInput(number),
            8 => Self::AttachOutput(number, Stream::Stdout),
            9 => Self::AttachOutput(number, Stream::Stderr),
            10 => Self::Memory(number),
            _ => return None,
        })
    }
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end.
    Read,
    /// Room to write, or a broken pipe.
    Write,
    /// Both.
    ReadWrite,
    /// An exceptional condition: a change of a cgroup file (cgroup-v2.rst).
    Priority,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
            Self::Priority => epoll::EventFlags::PRI,
        }
    }
}

/// The epoll descriptor.
#[derive(Debug)]
pub struct Reactor(OwnedFd);

impl Reactor {
    /// Makes an empty one.
    pub fn new() -> io::Result<Rc<Self>> {
        Ok(Rc::new(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?)))
    }

    /// Watches a descriptor that lives as long as the program.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.encode());
        Ok(epoll::add(&self.0, fd, data, interest.flags())?)
    }

    /// Waits until something is ready or the deadline has passed, and returns what is ready.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Token>> {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that the deadline has passed on waking.
            let left = left.min(Duration::from_secs(3600)) + Duration::from_micros(1);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(3600),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut ready = Vec::with_capacity(16);
        let spare = rustix::buffer::spare_capacity(&mut ready);
        match epoll::wait(&self.0, spare, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let decode = |event: &epoll::Event| Token::decode(event.data.u64());
        Ok(ready.iter().filter_map(decode).collect())
    }
}

/// An owned descriptor that can be watched.
///
/// Invariant: watched by the reactor exactly when `interest` is some. Dropping it ends the watch first: the kernel
/// would go on reporting a descriptor which another process holds too.
#[derive(Debug)]
pub struct Watched<T: AsFd = OwnedFd> {
    reactor: Rc<Reactor>,
    fd: T,
    token: Token,
    interest: Option<Interest>,
}

impl<T: AsFd> Watched<T> {
    /// Takes the descriptor, not watched yet.
    pub fn new(reactor: &Rc<Reactor>, fd: T, token: Token) -> Self {
        Self {
            reactor: Rc::clone(reactor),
            fd,
            token,
            interest: None,
        }
    }

    /// What is watched.
    pub fn get(&self) -> &T {
        &self.fd
    }

    /// Watches for `interest`, or for nothing, not even for errors.
    pub fn want(&mut self, interest: Option<Interest>) -> io::Result<()> {
        if self.interest == interest {
            return Ok(());
        }
        let epoll = &self.reactor.0;
        let data = epoll::EventData::new_u64(self.token.encode());
        match (self.interest, interest) {
            (_, None) => epoll::delete(epoll, &self.fd)?,
            (None, Some(wanted)) => epoll::add(epoll, &self.fd, data, wanted.flags())?,
            (Some(_), Some(wanted)) => epoll::modify(epoll, &self.fd, data, wanted.flags())?,
        }
        self.interest = interest;
        Ok(())
    }
}

impl<T: AsFd> AsFd for Watched<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        // Cannot fail for a watched descriptor, and there would be nobody to tell.
        let _ = self.want(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Listener,
            Token::Signals,
            Token::Logs,
            Token::Client(u32::MAX),
            Token::Output(7, Stream::Stdout),
            Token::Output(7, Stream::Stderr),
            Token::Input(1),
            Token::AttachInput(2),
            Token::AttachOutput(3, Stream::Stdout),
            Token::AttachOutput(3, Stream::Stderr),
            Token::Memory(4),
        ] {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(99 << 32), None);
    }

    #[test]
    fn a_dropped_watch_reports_no_more_even_if_the_file_is_still_open_elsewhere() {
        let reactor = Reactor::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let copy = read.try_clone().unwrap();
        let mut watched = Watched::new(&reactor, read, Token::Input(1));
        watched.want(Some(Interest::Read)).unwrap();
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(reactor.wait(None).unwrap(), [Token::Input(1)]);
        drop(watched);
        assert_eq!(reactor.wait(Some(Instant::now())).unwrap(), []);
        drop(copy);
    }
}
