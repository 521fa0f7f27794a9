//! Network devices of the present network namespace.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Brings the loopback device up, with which the kernel also gives it 127.0.0.1 and ::1: in a new
/// network namespace it is down (netdevice(7), SIOCSIFFLAGS).
///
/// # Errors
/// The kernel's: `EPERM` without CAP_NET_ADMIN over the namespace.
pub fn raise_loopback() -> io::Result<()> {
    // any socket will do; a kernel may lack a family of the Internet, but never this one
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut name: [libc::c_char; libc::IFNAMSIZ] = [0; libc::IFNAMSIZ];
    name[0] = b'l' as libc::c_char;
    name[1] = b'o' as libc::c_char;
    let flags = libc::IFF_UP as libc::c_short;
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
    };
    // SAFETY: `socket` is open for the call, and the kernel copies an ifreq, which `request` is,
    // before the call returns; of the union SIOCSIFFLAGS reads the flags alone.
    let done = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw const request,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
