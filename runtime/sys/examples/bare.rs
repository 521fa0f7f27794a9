//! The least that a container and an exec are: the system calls alone, without specification, state,
//! checks or a second program start. `cargo xtask bench oci` shows it as what bounds every runtime.
//!
//! `bare run ROOTFS GROUP` runs `/bin/true` in five new namespaces and the usual mounts, in a cgroup that
//! it makes and removes; `bare exec PID GROUP` runs it in the namespaces of a process.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use berth_sys::mount::{self, AttributeChange, FsContext, Propagation, attr};
use berth_sys::ns::{self, NamespaceKind};
use berth_sys::process::{self, CloneArgs, Exit};
use berth_sys::{creds, net};
use rustix::fs::{CWD, FileType, Mode, OFlags};

/// The namespaces of the bench's containers.
const NAMESPACES: [NamespaceKind; 5] = [
    NamespaceKind::Pid,
    NamespaceKind::Mount,
    NamespaceKind::Uts,
    NamespaceKind::Ipc,
    NamespaceKind::Net,
];
/// Name and number of the default devices.
const DEVICES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];
/// CAP_CHOWN, CAP_KILL, CAP_SETGID and CAP_SETUID.
const KEPT: u64 = 1 | 1 << 5 | 1 << 6 | 1 << 7;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words[..] {
        ["run", rootfs, group] => run(Path::new(rootfs), group),
        ["exec", pid, group] => pid
            .parse()
            .map_err(|_| io::ErrorKind::InvalidInput.into())
            .and_then(|pid| exec(pid, group)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match ended {
        Ok(Exit::Code(0)) => ExitCode::SUCCESS,
        other => {
            eprintln!("bare: {other:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(rootfs: &Path, group: &str) -> io::Result<Exit> {
    rustix::fs::mkdir(group, Mode::RWXU)?;
    let folder = open(group)?;
    let args = CloneArgs {
        namespaces: flags(),
        cgroup: Some(folder.as_fd()),
        sibling: false,
    };
    let child = process::clone_with(&args, || failed(enter(rootfs).and_then(|()| program())))?;
    let exit = process::wait(child.pidfd());
    rustix::fs::rmdir(group)?;
    exit
}

fn exec(pid: i32, group: &str) -> io::Result<Exit> {
    let target = process::pidfd_open(pid)?;
    let folder = open(group)?;
    ns::join(&target, NamespaceKind::Pid.flag())?;
    let args = CloneArgs {
        cgroup: Some(folder.as_fd()),
        ..CloneArgs::default()
    };
    let join = || {
        ns::join(&target, flags() & !NamespaceKind::Pid.flag())?;
        confine()?;
        program()
    };
    let child = process::clone_with(&args, || failed(join()))?;
    process::wait(child.pidfd())
}

fn flags() -> i32 {
    NAMESPACES.iter().fold(0, |all, kind| all | kind.flag())
}

fn open(folder: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)
}

/// The root of the bench's specification, mount by mount.
fn enter(rootfs: &Path) -> io::Result<()> {
    process::new_session_keyring()?;
    net::raise_loopback()?;
    rustix::system::sethostname(b"bare")?;
    let root = mount::clone_path(rootfs, true, true)?;
    let private = AttributeChange {
        propagation: Some(Propagation::Private),
        ..AttributeChange::default()
    };
    mount::set_attributes(open("/")?, private, true)?;
    mount::attach(&root, open("/")?)?;
    rustix::process::fchdir(&root)?;
    place("proc", &[], 0)?;
    let size = [("mode", "755"), ("size", "65536k")];
    place("tmpfs", &size, attr::NOSUID)?;
    place("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], 0)?;
    let bare = attr::NOSUID | attr::NOEXEC | attr::NODEV | attr::RDONLY;
    place("sysfs", &[], bare)?;
    for (name, major, minor) in DEVICES {
        let number = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, name, FileType::CharacterDevice, mode, number)?;
    }
    let hidden = mount::clone_path(Path::new("dev/null"), false, true)?;
    mount::attach(hidden, path("proc/keys")?)?;
    let parameters = mount::clone_path(Path::new("proc/sys"), true, true)?;
    mount::set_attributes(&parameters, read_only(), true)?;
    mount::attach(parameters, path("proc/sys")?)?;
    mount::set_attributes(&root, read_only(), false)?;
    mount::pivot_into(&root)?;
    confine()
}

fn read_only() -> AttributeChange {
    AttributeChange {
        set: attr::RDONLY,
        ..AttributeChange::default()
    }
}

/// Mounts a file system where containers have it.
fn place(kind: &str, values: &[(&str, &str)], attributes: u64) -> io::Result<()> {
    let context = FsContext::open(kind)?;
    for (key, value) in values {
        context.set(key, *value)?;
    }
    let target = match kind {
        "tmpfs" => "dev",
        "devpts" => "dev/pts",
        "sysfs" => "sys",
        other => other,
    };
    if kind == "devpts" {
        rustix::fs::mkdir(target, Mode::RWXU)?;
    }
    mount::attach(context.mount(attributes)?, path(target)?)
}

fn path(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, name, flags, Mode::empty())?)
}

fn confine() -> io::Result<()> {
    creds::set_no_new_privs()?;
    creds::limit_bounding(KEPT)?;
    creds::set_capabilities(KEPT, KEPT, 0)
}

/// Returns only on failure.
fn program() -> io::Result<()> {
    let program: &CStr = c"/bin/true";
    Err(process::execve(program, &[CString::from(program)], &[]))
}

fn failed(outcome: io::Result<()>) -> i32 {
    eprintln!("bare: {outcome:?}");
    1
}
