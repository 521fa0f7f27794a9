//! Id maps, and user namespaces made only to hold them (user_namespaces(7), mount_setattr(2)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::process::{self, Child, CloneArgs};

/// The most lines which the kernel takes in one map (`UID_GID_MAP_MAX_EXTENTS`).
pub const MAX_LINES: usize = 340;

/// One line of `/proc/<pid>/uid_map` or `gid_map`: a run of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdMap {
    /// First id inside the namespace; for an id-mapped mount, as the file system stores it.
    pub inside: u32,
    /// First id outside, in the user namespace of whoever writes the map.
    pub outside: u32,
    /// How many ids follow one another; never 0.
    pub length: u32,
}

/// What `id` inside is outside; none where the map has it not.
pub fn outside(map: &[IdMap], id: u32) -> Option<u32> {
    map.iter().find_map(|line| {
        let offset = id.checked_sub(line.inside)?;
        (offset < line.length).then(|| line.outside.checked_add(offset))?
    })
}

/// The text of a map, as one write to `uid_map` or `gid_map` takes it.
pub fn text(map: &[IdMap]) -> String {
    map.iter()
        .map(|line| format!("{} {} {}\n", line.inside, line.outside, line.length))
        .collect()
}

/// A new user namespace with these maps and nothing else in it: a process is born into it, gets
/// the maps, and ends. Needs CAP_SETUID and CAP_SETGID, and a `/proc` of the caller's PID namespace.
///
/// # Errors
/// `EINVAL` for an empty map, one that overlaps itself or one of more than [`MAX_LINES`]; `EPERM`
/// without the capabilities; `ENOSPC` where user namespaces are switched off.
pub fn user_namespace(uids: &[IdMap], gids: &[IdMap]) -> io::Result<OwnedFd> {
    if uids.is_empty() || gids.is_empty() {
        return Err(Errno::INVAL.into());
    }
    user_namespace_by(|holder| {
        let folder = format!("/proc/{}", holder.pid());
        fs::write(format!("{folder}/uid_map"), text(uids))?;
        fs::write(format!("{folder}/gid_map"), text(gids))
    })
}

/// As [`user_namespace`], with the maps written by `write`, which gets the process that stays
/// alive in the namespace for as long as that takes.
pub fn user_namespace_by<E: From<io::Error>>(
    write: impl FnOnce(&Child) -> Result<(), E>,
) -> Result<OwnedFd, E> {
    let (stay, leave) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let args = CloneArgs {
        namespaces: libc::CLONE_NEWUSER,
        ..CloneArgs::default()
    };
    let holder = process::clone_with(&args, || {
        // Without its own copy of the other end it ends with the parent, whatever happens there.
        if process::close_inherited(&[stay.as_fd()]).is_ok() {
            let _ = rustix::io::read(&stay, &mut [0u8; 1]);
        }
        0
    })?;
    // The holder is not collected yet, so its number is still its own.
    let namespace = write(&holder).and_then(|()| {
        let file = fs::File::open(format!("/proc/{}/ns/user", holder.pid()))?;
        Ok(OwnedFd::from(file))
    });
    drop(leave);
    process::wait(holder.pidfd())?;
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_written_line_by_line() {
        let map = [
            IdMap {
                inside: 0,
                outside: 100_000,
                length: 1000,
            },
            IdMap {
                inside: 1000,
                outside: 0,
                length: 1,
            },
        ];
        assert_eq!(text(&map), "0 100000 1000\n1000 0 1\n");
        assert_eq!(outside(&map, 999), Some(100_999));
        assert_eq!((outside(&map, 1000), outside(&map, 1001)), (Some(0), None));
    }

    #[test]
    fn an_empty_map_is_refused_before_anything_is_made() {
        let error = user_namespace(&[], &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    }
}
