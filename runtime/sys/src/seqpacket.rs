//! Messages with file descriptors over Unix SEQPACKET sockets (unix(7)).
//!
//! Every packet starts with one byte: `0` means that the payload follows in the packet, `1` that the first
//! descriptor sent along is a sealed memfd which holds it. The empty packet is thus never sent and a read of
//! zero bytes is always the end of the stream.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Largest payload, in bytes, that travels inside a packet; a larger one goes as a sealed memfd.
pub const INLINE_MAX: usize = 32 * 1024;
/// Largest payload, in bytes, that is sent or accepted at all.
pub const PAYLOAD_MAX: usize = 4 * 1024 * 1024;
/// Most descriptors that one message may carry.
pub const FDS_MAX: usize = 8;

const INLINE: u8 = 0;
const MEMFD: u8 = 1;
/// Longest `sun_path` with its terminating zero byte (unix(7)).
const SUN_PATH_MAX: usize = 107;
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::SEAL);

/// Who is at the other end, as the kernel recorded it at connect or listen time (SO_PEERCRED, socket(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id in our PID namespace; 0 when the peer is outside of it.
    pub pid: i32,
    /// Effective user id in our user namespace.
    pub uid: u32,
    /// Effective group id in our user namespace.
    pub gid: u32,
}

/// A listening SEQPACKET socket with a path.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Binds `path`, which must not exist, and listens, close-on-exec.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        with_address(path, |address| rustix::net::bind(&fd, address))?;
        rustix::net::listen(&fd, 128)?;
        Ok(Self(fd))
    }

    /// Takes the next connection.
    pub fn accept(&self) -> io::Result<Socket> {
        let fd = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC)?;
        Ok(Socket(fd))
    }

    /// Makes `accept` return `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, on)?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One connected SEQPACKET socket.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Connects to the listener at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        with_address(path, |address| rustix::net::connect(&fd, address))?;
        Ok(Self(fd))
    }

    /// As [`Socket::connect`]; connecting, sending and receiving then wait no longer than
    /// `patience` each and fail with `WouldBlock` (SO_RCVTIMEO, socket(7)).
    pub fn connect_within(path: &Path, patience: Duration) -> io::Result<Self> {
        let fd = new_socket()?;
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&fd, direction, Some(patience))?;
        }
        with_address(path, |address| rustix::net::connect(&fd, address))?;
        Ok(Self(fd))
    }

    /// Two sockets connected with each other, close-on-exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one message. Nothing is sent when this fails; a dead peer is `BrokenPipe`, never SIGPIPE.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.len() > PAYLOAD_MAX || fds.len() > FDS_MAX {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        if bytes.len() <= INLINE_MAX {
            return self.send_packet(INLINE, bytes, fds);
        }
        let payload = sealed_memfd(bytes)?;
        let mut all = Vec::with_capacity(fds.len() + 1);
        all.push(payload.as_fd());
        all.extend_from_slice(fds);
        self.send_packet(MEMFD, &[], &all)
    }

    /// As [`Socket::send`] of a message without descriptors, at most [`INLINE_MAX`] long, by write(2):
    /// of all calls the one that a seccomp filter is likely to allow. A dead peer is SIGPIPE.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > INLINE_MAX {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        let packet = [&[INLINE], bytes].concat();
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &packet))?;
        Ok(())
    }

    fn send_packet(&self, kind: u8, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        let head = [kind];
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// Receives one message with its descriptors (close-on-exec); `None` at the end of the stream.
    pub fn recv(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let length = self.next_length()?;
        if length == 0 {
            return Ok(None);
        }
        let mut head = [0u8; 1];
        // An overlong packet is cut, which the kernel tells.
        let mut bytes = vec![0u8; length.min(INLINE_MAX + 1) - 1];
        let mut fds = Vec::new();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = {
            let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut bytes)];
            rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)
            })?
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
            || got.bytes != length
        {
            return Err(bad("packet is too long or carries too many descriptors"));
        }
        match head[0] {
            INLINE if fds.len() <= FDS_MAX => Ok(Some((bytes, fds))),
            MEMFD if bytes.is_empty() && !fds.is_empty() => {
                let payload = read_sealed(fds.remove(0))?;
                Ok(Some((payload, fds)))
            }
            _ => Err(bad("packet has an unknown form")),
        }
    }

    /// Length of the next packet, 0 at the end of the stream. Waits for either. Most packets are far
    /// below the longest, and room for that would be page faults at each.
    fn next_length(&self) -> io::Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let (_, length) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut [0u8; 1], flags))?;
        Ok(length)
    }

    /// The peer's identity at the time it connected.
    pub fn peer_cred(&self) -> io::Result<PeerCred> {
        let mut cred = libc::ucred {
            pid: 0,
            uid: 0,
            gid: 0,
        };
        let mut length = std::mem::size_of::<libc::ucred>() as libc::socklen_t;
        // rustix's typed call cannot express pid 0, which is what a peer outside our PID namespace has.
        // SAFETY: `cred` and `length` are writable, of the sizes that SO_PEERCRED fills, and outlive the call.
        let rc = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut cred).cast(),
                &raw mut length,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PeerCred {
            pid: cred.pid,
            uid: cred.uid,
            gid: cred.gid,
        })
    }

    /// Makes `send` and `recv` return `WouldBlock` instead of waiting.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, on)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes an inherited or received descriptor as a socket of this kind.
impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Calls `act` with the address of `path`. A path too long for `sun_path` goes by way of its opened directory.
fn with_address(
    path: &Path,
    act: impl FnOnce(&SocketAddrUnix) -> rustix::io::Result<()>,
) -> io::Result<()> {
    if path.as_os_str().len() <= SUN_PATH_MAX {
        return Ok(act(&SocketAddrUnix::new(path)?)?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(rustix::io::Errno::NAMETOOLONG));
    };
    let directory = rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let through = Path::new("/proc/self/fd")
        .join(OsStr::new(&directory.as_raw_fd().to_string()))
        .join(name);
    Ok(act(&SocketAddrUnix::new(through.as_path())?)?)
}

fn sealed_memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(
        "berth-message",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

fn read_sealed(fd: OwnedFd) -> io::Result<Vec<u8>> {
    // Without the seals the sender could change or cut the bytes while they are parsed.
    let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| bad("payload is not a memfd"))?;
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE) {
        return Err(bad("payload memfd is not sealed"));
    }
    let mut file = std::fs::File::from(fd);
    let length = file.metadata()?.len();
    if length > PAYLOAD_MAX as u64 {
        return Err(bad("payload is too long"));
    }
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(PAYLOAD_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn bad(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_bytes_and_descriptors() {
        let (a, b) = Socket::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for size in [0, 1, INLINE_MAX, INLINE_MAX + 1, 1024 * 1024, PAYLOAD_MAX] {
            let payload = vec![7u8; size];
            a.send(&payload, &[null.as_fd(), null.as_fd()]).unwrap();
            let (bytes, fds) = b.recv().unwrap().unwrap();
            assert_eq!(bytes.len(), size);
            assert!(bytes.iter().all(|&byte| byte == 7));
            assert_eq!(fds.len(), 2);
            for fd in fds {
                let flags = rustix::io::fcntl_getfd(&fd).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
        drop(a);
        assert!(b.recv().unwrap().is_none());
    }

    #[test]
    fn an_oversized_message_is_refused_at_the_sender() {
        let (a, _b) = Socket::pair().unwrap();
        assert!(a.send(&vec![0; PAYLOAD_MAX + 1], &[]).is_err());
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(a.send(b"x", &[null.as_fd(); FDS_MAX + 1]).is_err());
    }

    #[test]
    fn foreign_packets_are_errors_not_panics() {
        let (a, b) = Socket::pair().unwrap();
        let raw = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            let parts = [IoSlice::new(bytes)];
            rustix::net::sendmsg(&a, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
        };
        let null = std::fs::File::open("/dev/null").unwrap();
        raw(&[9, 1, 2], &[]);
        assert!(b.recv().is_err());
        raw(&[MEMFD], &[]);
        assert!(b.recv().is_err());
        raw(&[MEMFD], &[null.as_fd()]);
        assert!(b.recv().is_err());
        let unsealed =
            rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        raw(&[MEMFD], &[unsealed.as_fd()]);
        assert!(b.recv().is_err());
        raw(&vec![0; INLINE_MAX + 100], &[]);
        assert!(b.recv().is_err());
    }

    #[test]
    fn a_long_path_binds_and_connects() {
        let base = std::env::temp_dir().join(format!("berth-seqpacket-{}", std::process::id()));
        let deep = base.join("d".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("monitor.sock");
        let listener = Listener::bind(&path).unwrap();
        let client = Socket::connect(&path).unwrap();
        let server = listener.accept().unwrap();
        assert_eq!(
            server.peer_cred().unwrap().pid,
            i32::try_from(std::process::id()).unwrap()
        );
        client.send(b"hello", &[]).unwrap();
        assert_eq!(server.recv().unwrap().unwrap().0, b"hello");
        std::fs::remove_dir_all(&base).unwrap();
    }
}
