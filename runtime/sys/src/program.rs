//! The file of a program, out of reach of the containers that it makes.
//!
//! Whoever sees a process can open its program through `/proc/N/exe`, and root in a container may
//! write what it opens, once the program has ended (CVE-2019-5736).

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::mount::{self, AttributeChange, attr};
use crate::process;

const OWN: &str = "/proc/self/exe";

/// All that makes a memory file unchangeable for good (memfd_create(2)).
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// Sees to it that this process runs from a file which nobody can open for writing: executes the
/// program once more from a read-only mount of it that is attached nowhere, or, without the
/// privilege for that, from a sealed copy in memory. Returns in the process that is safe, at once
/// where the program lies on a read-only mount anyway.
pub fn shield() -> io::Result<()> {
    let own = File::open(OWN)?;
    if is_safe(&own)? {
        return Ok(());
    }
    let safe = safe_copy(own)?;
    let arguments = strings(std::env::args_os())?;
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    Err(process::exec_fd(&safe, &arguments, &strings(variables)?))
}

/// The program behind `program`, to be executed from the descriptor returned: from a read-only mount of
/// it that is attached nowhere, or, without the privilege for that, from a sealed copy in memory. Only
/// in the mount namespace that the file was opened in can it be mounted once more.
pub fn out_of_reach(program: File) -> io::Result<OwnedFd> {
    if is_safe(&program)? {
        return Ok(program.into());
    }
    safe_copy(program)
}

/// The program of this process by [`out_of_reach`]: where it runs from such a file, that very file.
pub fn own() -> io::Result<OwnedFd> {
    out_of_reach(File::open(OWN)?)
}

fn is_safe(program: impl AsFd) -> io::Result<bool> {
    let flags = rustix::fs::fstatvfs(&program)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    match rustix::fs::fcntl_get_seals(&program) {
        Ok(seals) => Ok(seals.contains(SealFlags::WRITE)),
        Err(Errno::INVAL) => Ok(false), // no memory file
        Err(errno) => Err(errno.into()),
    }
}

fn safe_copy(program: File) -> io::Result<OwnedFd> {
    read_only_mount(&program).or_else(|_| sealed_copy(program))
}

fn read_only_mount(program: &File) -> io::Result<OwnedFd> {
    let mount = mount::clone_fd(program, false)?;
    let change = AttributeChange {
        set: attr::RDONLY,
        ..AttributeChange::default()
    };
    mount::set_attributes(&mount, change, false)?;
    Ok(mount)
}

fn sealed_copy(mut program: File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut copy = File::from(rustix::fs::memfd_create("program", flags)?);
    io::copy(&mut program, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    // a file that is open for writing cannot be executed
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
    Ok(File::open(path)?.into())
}

fn strings(words: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    words
        .map(|word| CString::new(word.into_vec()).map_err(io::Error::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sealed_copy_is_the_program_and_safe() {
        let copy = sealed_copy(File::open(OWN).unwrap()).unwrap();
        assert!(is_safe(&copy).unwrap());
        let length = std::fs::metadata(OWN).unwrap().len();
        assert_eq!(rustix::fs::fstat(&copy).unwrap().st_size as u64, length);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&copy));
        let written = File::options()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(b"x"));
        assert_eq!(written.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn root_a_read_only_mount_is_safe() {
        if rustix::process::geteuid().is_root() {
            assert!(is_safe(read_only_mount(&File::open(OWN).unwrap()).unwrap()).unwrap());
        }
    }
}
