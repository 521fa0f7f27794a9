//! The pause process: first of a pod, holder of its namespaces, without any right of its own.
//!
//! Where the pod shares its PID namespace, containers see this process as PID 1. So it has an
//! empty root (nothing of the host behind `/proc/1/root`), no capability, an id of its own, and its
//! program is executed from a read-only mount of it, through which nobody opens `/proc/1/exe` for
//! writing (CVE-2019-5736).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::creds;
use berth_sys::mount::{self, AttributeChange, FsContext, Propagation, attr};
use berth_sys::ns::NamespaceKind;
use berth_sys::process::{self, CloneArgs};
use berth_sys::root::RootDir;
use rustix::fs::{CWD, Mode, OFlags};

use super::error::At;
use super::protocol::{Channel, ChildToParent};
use super::{LaunchError, ProcessIo, Running, Stage, join, parent, stdio};
use crate::cgroup::Cgroup;
use crate::plan::PodPlan;
use crate::procfs::ProcFs;
use crate::spec::sysctl_file;

/// Exit code of a child which failed before its program ran.
const FAILED: i32 = 1;

/// User and group of the pause process (as in the ecosystem's pause images).
const PAUSE_ID: u32 = 65535;

pub(super) fn start(plan: &PodPlan) -> Result<Running, LaunchError> {
    let sysctls = sysctls(plan)?;
    let cgroup = match &plan.cgroup {
        Some(path) => Some(
            Cgroup::open(path)
                .map_err(|e| LaunchError::from_chain(Stage::Cgroup, "open the group", &e))?,
        ),
        None => None,
    };
    let program = Program::of(plan)?;
    let (ours, theirs) = Channel::pair().at(Stage::Clone, || "make the channel".into())?;
    let args = CloneArgs {
        namespaces: kinds(plan)
            .iter()
            .fold(NamespaceKind::Mount.flag(), |flags, kind| {
                flags | kind.flag()
            }),
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        sibling: false,
    };
    let mut inside = Some(theirs);
    let child = process::clone_with(&args, || match inside.take() {
        Some(channel) => run(plan, &program, &sysctls, &channel),
        None => FAILED,
    });
    let child = child.at(Stage::Clone, || "clone the pause process".into())?;
    drop(inside);
    match parent::listen_for_exec(&ours, None) {
        Ok(_) => Ok(Running::from(child)),
        Err(error) => Err(parent::reap(child, error)),
    }
}

/// What the child executes. Made by the parent: the child's mount namespace does not hold the mount
/// that the plan's file was opened on, and what is returned here may be open for execution alone.
struct Program {
    file: OwnedFd,
    dynamic: bool,
}

impl Program {
    fn of(plan: &PodPlan) -> Result<Program, LaunchError> {
        let dynamic = is_dynamic(plan.pause.as_fd());
        let file = plan.pause.try_clone().map(std::fs::File::from);
        let file = file.and_then(berth_sys::program::out_of_reach);
        Ok(Program {
            file: file.at(Stage::Exec, || "shield the pause program".into())?,
            dynamic: dynamic.at(Stage::Exec, || "read the pause program".into())?,
        })
    }
}

/// The namespaces that are made, besides the mount namespace.
fn kinds(plan: &PodPlan) -> Vec<NamespaceKind> {
    let all = [
        (plan.net, NamespaceKind::Net),
        (plan.ipc, NamespaceKind::Ipc),
        (plan.uts, NamespaceKind::Uts),
        (plan.pid, NamespaceKind::Pid),
    ];
    all.iter()
        .filter(|(made, _)| *made)
        .map(|(_, kind)| *kind)
        .collect()
}

fn sysctls(plan: &PodPlan) -> Result<Vec<(PathBuf, String)>, LaunchError> {
    let own = kinds(plan);
    let mut out = Vec::new();
    for (key, value) in &plan.sysctls {
        let step = || format!("set kernel parameter `{key}`");
        let (file, kind) = sysctl_file(key, value)
            .map_err(|why| LaunchError::refused(Stage::Join, step(), why))?;
        if !own.contains(&kind) {
            let why = format!("the pod has no {} namespace of its own", kind.proc_name());
            return Err(LaunchError::refused(Stage::Join, step(), why));
        }
        out.push((file, value.clone()));
    }
    Ok(out)
}

fn run(plan: &PodPlan, program: &Program, sysctls: &[(PathBuf, String)], channel: &Channel) -> i32 {
    let error = match prepare(plan, program, sysctls, channel) {
        Ok(()) => {
            let error = process::exec_fd(&program.file, &[c"pause".to_owned()], &[]);
            LaunchError::from_io(Stage::Exec, "execute the pause program", &error)
        }
        Err(error) => error,
    };
    // Without a listener there is nobody left to tell.
    let _ = channel.send(&ChildToParent::Failed(error), &[]);
    FAILED
}

fn prepare(
    plan: &PodPlan,
    program: &Program,
    sysctls: &[(PathBuf, String)],
    channel: &Channel,
) -> Result<(), LaunchError> {
    process::close_inherited(&[channel.as_fd(), program.file.as_fd()])
        .at(Stage::Join, || "close the parent's descriptors".into())?;
    join::detach_from_parent(channel, true)?;
    stdio::install(&null_streams()?).at(Stage::Join, || "install the standard streams".into())?;
    let proc = ProcFs::private().at(Stage::Join, || "open a private procfs".into())?;
    if let Some(adjust) = plan.oom_score_adj {
        join::set_oom_score(&proc, adjust, channel)?;
    }
    if let (true, Some(name)) = (plan.uts, &plan.hostname) {
        rustix::system::sethostname(name.as_bytes())
            .at(Stage::Join, || format!("set the host name `{name}`"))?;
    }
    for (file, value) in sysctls {
        proc.write(&Path::new("sys").join(file), value)
            .at(Stage::Join, || {
                format!("set kernel parameter `{}` to `{value}`", file.display())
            })?;
    }
    drop(proc);
    enter_bare_root(program.dynamic)?;
    creds::set_no_new_privs().at(Stage::Confine, || "set no_new_privs".into())?;
    creds::limit_bounding(0).at(Stage::Confine, || "limit the bounding set".into())?;
    creds::set_ids(PAUSE_ID, PAUSE_ID, &[])
        .at(Stage::Confine, || format!("become user {PAUSE_ID}"))?;
    creds::set_capabilities(0, 0, 0).at(Stage::Confine, || "drop the capabilities".into())?;
    process::default_signals().at(Stage::Exec, || "reset the signals".into())?;
    process::close_on_exec_from(3).at(Stage::Exec, || "mark descriptors close-on-exec".into())
}

fn null_streams() -> Result<ProcessIo, LaunchError> {
    let open = || {
        let null = rustix::fs::openat(
            CWD,
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        );
        null.at(Stage::Join, || "open `/dev/null`".into())
    };
    Ok(ProcessIo::Fds {
        stdin: open()?,
        stdout: open()?,
        stderr: open()?,
    })
}

/// A root with nothing in it; for a dynamic program, as in development, with the system's libraries.
fn enter_bare_root(dynamic: bool) -> Result<(), LaunchError> {
    let step = || "enter an empty root".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, "/", flags, Mode::empty()).at(Stage::Rootfs, step)?;
    let private = AttributeChange {
        propagation: Some(Propagation::Private),
        ..AttributeChange::default()
    };
    mount::set_attributes(&top, private, true).at(Stage::Rootfs, step)?;
    let context = FsContext::open("tmpfs").at(Stage::Rootfs, step)?;
    for (key, value) in [
        ("source", "pause"),
        ("size", "4k"),
        ("nr_inodes", "8"),
        ("mode", "555"),
    ] {
        context.set(key, value).at(Stage::Rootfs, step)?;
    }
    let root = context
        .mount(attr::NOSUID | attr::NODEV)
        .at(Stage::Rootfs, step)?;
    let libraries = if dynamic {
        libraries().at(Stage::Rootfs, step)?
    } else {
        Vec::new()
    };
    mount::attach(&root, &top).at(Stage::Rootfs, step)?;
    let root = RootDir::from(root);
    for (path, copy) in libraries {
        let target = root.mkdir_all(path, 0o555).at(Stage::Rootfs, step)?;
        mount::attach(&copy, &target).at(Stage::Rootfs, step)?;
    }
    let change = AttributeChange {
        set: attr::RDONLY,
        ..AttributeChange::default()
    };
    mount::set_attributes(&root, change, true).at(Stage::Rootfs, step)?;
    mount::pivot_into(&root).at(Stage::Rootfs, step)
}

/// Copies of the folders in which a loader and its libraries may lie, as far as they exist.
fn libraries() -> std::io::Result<Vec<(&'static str, OwnedFd)>> {
    let mut out = Vec::new();
    for path in ["/lib", "/lib64", "/usr/lib"] {
        match mount::clone_path(Path::new(path), false, true) {
            Ok(copy) => out.push((path, copy)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}

/// Whether an ELF program asks for a loader (`PT_INTERP`, elf(5)). What is no 64-bit ELF program is
/// for execve to refuse.
fn is_dynamic(program: BorrowedFd<'_>) -> std::io::Result<bool> {
    const PT_INTERP: u32 = 3;
    let mut head = [0u8; 4096];
    let length = rustix::io::pread(program, &mut head, 0)?;
    let head = &head[..length];
    let u16_at = |at: usize| {
        head.get(at..at + 2)
            .map_or(0, |b| u16::from_le_bytes([b[0], b[1]]) as usize)
    };
    let table = head
        .get(32..40)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    let (size, count) = (u16_at(54), u16_at(56));
    let kinds = (0..count).filter_map(|index| {
        let at = usize::try_from(table).ok()?.checked_add(index * size)?;
        head.get(at..at.checked_add(4)?)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    });
    Ok(kinds.into_iter().any(|kind| kind == PT_INTERP))
}
