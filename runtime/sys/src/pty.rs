//! Pseudo terminals (pty(7)).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Both ends of a new pseudo terminal of this mount namespace's `/dev/ptmx`, close-on-exec.
#[derive(Debug)]
pub struct Pair {
    /// The side that a terminal emulator holds.
    pub master: OwnedFd,
    /// The side that becomes a process's controlling terminal.
    pub slave: OwnedFd,
}

/// Opens a pseudo terminal pair without making it anybody's controlling terminal.
pub fn open() -> io::Result<Pair> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    // By ioctl, not by the name in /dev/pts, which may belong to another devpts instance.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pair { master, slave })
}

/// Sets the terminal's size in characters; the foreground process group gets SIGWINCH.
pub fn resize(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Receives a terminal's master from a console socket, as OCI runtimes send it: any bytes with one descriptor.
pub fn receive_master(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut name = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut name)],
        &mut control,
        flags,
    )?;
    let mut received = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came along"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slave_sees_the_size_set_at_the_master() {
        let pair = open().unwrap();
        resize(&pair.master, 43, 132).unwrap();
        let size = rustix::termios::tcgetwinsize(&pair.slave).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (43, 132));
    }
}
