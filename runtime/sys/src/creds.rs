//! Identity and privilege of a process: ids, capabilities, no_new_privs, limits (credentials(7), capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The highest capability number of linux/capability.h known here (`CAP_CHECKPOINT_RESTORE`).
pub const LAST_CAPABILITY: u32 = 40;

/// Capability sets as bit masks, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilityMasks {
    /// What execve may ever grant.
    pub bounding: u64,
    /// What counts now.
    pub effective: u64,
    /// What the process may make effective.
    pub permitted: u64,
    /// What files may pass on.
    pub inheritable: u64,
    /// What survives execve of an ordinary file.
    pub ambient: u64,
}

/// Takes every capability outside `keep` from the bounding set. Needs `CAP_SETPCAP` where one of
/// them is in it.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in (0..64).filter(|number| keep & (1 << number) == 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(Errno::INVAL) => break, // the kernel knows no higher number
            Err(Errno::PERM) if !rustix::thread::capability_is_in_bounding_set(one)? => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The capabilities which the calling thread has in effect.
pub fn effective_capabilities() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.effective.bits())
}

/// The capabilities which the calling thread may make effective.
pub fn permitted_capabilities() -> io::Result<u64> {
    Ok(rustix::thread::capabilities(None)?.permitted.bits())
}

/// Sets effective, permitted and inheritable sets of the calling thread.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Makes the ambient set exactly `mask`; each bit must be permitted and inheritable.
pub fn set_ambient(mask: u64) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..64u32 {
        if mask & (1 << number) != 0 {
            rustix::thread::configure_capability_in_ambient_set(
                CapabilitySet::from_bits_retain(1 << number),
                true,
            )?;
        }
    }
    Ok(())
}

/// Whether leaving uid 0 keeps the permitted set (`PR_SET_KEEPCAPS`; execve clears it).
pub fn set_keep_capabilities(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}

/// No execve may gain privilege from now on (`PR_SET_NO_NEW_PRIVS`); cannot be undone.
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Sets supplementary groups, then all three gids, then all three uids of the calling thread.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // -1 means "unchanged" to setresuid(2): it must never come from outside as an id (CVE-2024-40635's family).
    if uid == u32::MAX || gid == u32::MAX || groups.contains(&u32::MAX) {
        return Err(Errno::INVAL.into());
    }
    let groups: Vec<Gid> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    set_ids_but_groups(uid, gid)
}

/// Sets all three gids, then all three uids of the calling thread; the supplementary groups stay,
/// for a user namespace which forbids setgroups(2).
pub fn set_ids_but_groups(uid: u32, gid: u32) -> io::Result<()> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL.into());
    }
    let gid = Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Whether other processes of the same user may trace this one and read its `/proc` files
/// (`PR_SET_DUMPABLE`); execve sets it anew.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    use rustix::process::DumpableBehavior;
    let behavior = if dumpable {
        DumpableBehavior::Dumpable
    } else {
        DumpableBehavior::NotDumpable
    };
    Ok(rustix::process::set_dumpable_behavior(behavior)?)
}

/// Runs `act` with other ids for access to files (setfsuid(2)), and with every permitted capability
/// in effect: new files get these ids, and their permissions still do not count.
pub fn with_fs_ids<T>(uid: u32, gid: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    let before = rustix::thread::capabilities(None)?;
    let (own_uid, own_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let raised = CapabilitySets {
        effective: before.permitted,
        ..before
    };
    change_fs_ids(uid, gid)?;
    // Leaving id 0 took the capabilities over files out of the effective set (capabilities(7)).
    let result = rustix::thread::set_capabilities(None, raised).map(|()| act());
    change_fs_ids(own_uid.as_raw(), own_gid.as_raw())?;
    rustix::thread::set_capabilities(None, before)?;
    Ok(result?)
}

fn change_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    // Both return the id before, and fail only by leaving it; u32::MAX is no id and only reads.
    set_fs_gid(gid);
    set_fs_uid(uid);
    if set_fs_uid(u32::MAX) == uid && set_fs_gid(u32::MAX) == gid {
        Ok(())
    } else {
        Err(Errno::PERM.into())
    }
}

fn set_fs_uid(uid: u32) -> u32 {
    // SAFETY: the call takes one number and passes no memory.
    unsafe { libc::setfsuid(uid) as u32 }
}

fn set_fs_gid(gid: u32) -> u32 {
    // SAFETY: as for setfsuid.
    unsafe { libc::setfsgid(gid) as u32 }
}

/// Soft and hard limit of one resource (`RLIMIT_*` number) of the calling process.
pub fn rlimit(resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a writable rlimit that outlives the call; an unknown number gives EINVAL.
    let rc = unsafe { libc::getrlimit(resource as _, &raw mut limit) };
    if rc == 0 {
        Ok((limit.rlim_cur, limit.rlim_max))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets soft and hard limit of one resource of the calling process.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is a whole rlimit, read by the kernel during the call only.
    let rc = unsafe { libc::setrlimit(resource as _, &raw const limit) };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
