//! What the kernel reports of a process that is held: bounded reads below one descriptor of its
//! directory in procfs (proc(5)), and of its cgroup.

mod files;
mod mountinfo;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_sys::creds::CapabilityMasks;
use berth_sys::ns::{self, Namespace as NamespaceFile, NamespaceKind};
use berth_sys::root::RootDir;
use rustix::fs::{CWD, Mode, OFlags};

use super::compare::is_mask;
use super::digest;
use super::schema::{Applied, Capabilities, Finding, IdMapLines, Ids, Namespace, Requested};
use super::schema::{Mount, Seccomp};
use crate::cgroup::{self, Cgroup};
pub(super) use files::{Reader, read_small};
pub(super) use status::Status;

use super::own::Own;

/// Largest environment that is read: the kernel takes arguments and environment of 6 MiB at most.
const ENVIRONMENT_MAX: usize = 6 << 20;
/// Most descriptors that are told.
const DESCRIPTORS_MAX: usize = 1024;
/// The namespace files of a process.
pub(super) const NAMESPACES: [&str; 8] =
    ["user", "cgroup", "ipc", "uts", "net", "pid", "mnt", "time"];

/// What was seen, and what the comparison wants to know besides.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) applied: Applied,
    /// What could not be read, with the reason.
    pub(super) unread: Vec<Finding>,
    /// Controllers of the group.
    pub(super) controllers: Vec<String>,
    /// Requested targets which were found under another name, or by their file: (device, inode).
    pub(super) targets: BTreeMap<String, Target>,
    /// The working directory is the requested one under another name.
    pub(super) same_cwd: bool,
    /// The file that was executed.
    pub(super) program: Option<Program>,
    /// Paths to be protected that do not exist.
    pub(super) absent: Vec<String>,
    /// The device program is the requested one as the verifier rewrites it.
    pub(super) same_devices: bool,
    /// Mounts that the root's directory brought along from the host.
    pub(super) inherited: Vec<String>,
    /// Inodes of the namespaces that an exec must be in.
    pub(super) target_namespaces: BTreeMap<String, u64>,
    /// Cgroup of that process, into which an exec goes where its own takes no process.
    pub(super) target_cgroup: Option<String>,
}

/// Where a requested target really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    /// Id of the mount that covers it, as in mountinfo.
    pub(super) mount: u64,
    /// Device and inode of what is seen there.
    pub(super) file: (u64, u64),
    /// It is a symbolic link.
    pub(super) link: bool,
}

/// The file behind `/proc/<pid>/exe`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Program {
    /// Permission bits, set-user-id and set-group-id among them.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Owning group.
    pub(super) gid: u32,
    /// It carries capabilities of its own.
    pub(super) capabilities: bool,
    /// Whether it is the file that the request names; none where an interpreter runs it.
    pub(super) as_asked: Option<bool>,
}

/// What only a tracer knows of a process that it holds at its execve.
pub(super) struct AtStop {
    /// Digests of its seccomp filters, where they could be read.
    pub(super) filters: Option<Vec<String>>,
}

/// Reads everything about the process `pid`, which is held at its execve, or else waits before it
/// with descriptors that close there.
pub(super) fn observe(
    pid: i32,
    requested: &Requested,
    own: &Own,
    stopped: Option<AtStop>,
) -> io::Result<Observed> {
    let closing = stopped.is_none();
    let filters = stopped.and_then(|stopped| stopped.filters);
    let mut reader = Reader::open(pid)?;
    let mut out = Observed::default();
    let status = Status::parse(&reader.read("status")?);
    out.applied.namespaces = Some(namespaces(&reader)?);
    out.applied.id_maps = Some(IdMapLines {
        uid: status::id_map(&reader.read("uid_map")?),
        gid: status::id_map(&reader.read("gid_map")?),
    });
    credentials(&status, filters, &mut out.applied);
    // Where this process has no label the host has no module that gives one.
    out.applied.lsm_label = own.label.as_ref().and_then(|_| reader.label());
    out.applied.rlimits = Some(status::limits(&reader.read("limits")?));
    out.applied.oom_score_adj = reader.read("oom_score_adj")?.trim().parse().ok();
    out.applied.cgroup = status::cgroup(&reader.read("cgroup")?);
    out.applied.descriptors = Some(reader.descriptors(closing, DESCRIPTORS_MAX)?);
    let environ = reader.read_bytes("environ", ENVIRONMENT_MAX)?;
    out.applied.environment = Some(digest::environment(environ, &requested.context.salt));
    let root = reader.root()?;
    working_directory(&reader, &root, requested, &mut out)?;
    executable(&reader, &root, requested, &mut out)?;
    if requested.context.exec {
        target_namespaces(requested, &mut out)?;
    } else {
        mounts(&mut reader, &root, requested, &mut out)?;
        sysctls(&reader, requested, &mut out);
    }
    limits(requested, &mut out);
    Ok(out)
}

/// Reads the limits of a group alone.
pub(super) fn observe_limits(requested: &Requested) -> Observed {
    let mut out = Observed {
        same_cwd: true,
        ..Observed::default()
    };
    limits(requested, &mut out);
    out
}

fn credentials(status: &Status, filters: Option<Vec<String>>, applied: &mut Applied) {
    applied.capabilities = Some(Capabilities::from(CapabilityMasks {
        bounding: status.bounding,
        effective: status.effective,
        permitted: status.permitted,
        inheritable: status.inheritable,
        ambient: status.ambient,
    }));
    applied.no_new_privs = Some(status.no_new_privs);
    let mode = match status.seccomp {
        0 => "disabled",
        1 => "strict",
        _ => "filter",
    };
    applied.seccomp = Some(Seccomp {
        mode: mode.into(),
        filters: filters.unwrap_or_default(),
    });
    let ids = |[real, effective, saved, file_system]: [u32; 4]| Ids {
        real,
        effective,
        saved,
        file_system,
    };
    applied.uids = Some(ids(status.uids));
    applied.gids = Some(ids(status.gids));
    applied.groups = Some(status.groups.clone());
    applied.umask = Some(format!("{:04o}", status.umask));
}

fn namespaces(reader: &Reader) -> io::Result<Vec<Namespace>> {
    let mut out = Vec::with_capacity(NAMESPACES.len());
    for kind in NAMESPACES {
        let Some(inode) = reader.namespace(kind)? else {
            continue; // this kernel has no such kind
        };
        out.push(Namespace {
            kind: kind.to_owned(),
            inode: Some(inode),
            of: String::new(), // judged by the comparison, which knows whose it is
        });
    }
    Ok(out)
}

fn target_namespaces(requested: &Requested, out: &mut Observed) -> io::Result<()> {
    let Some(pid) = requested.context.target_pid else {
        return Ok(());
    };
    let mut target = Reader::open(pid)?;
    out.target_cgroup = status::cgroup(&target.read("cgroup")?);
    for kind in NAMESPACES {
        if let Some(inode) = target.namespace(kind)? {
            out.target_namespaces.insert(kind.to_owned(), inode);
        }
    }
    Ok(())
}

fn working_directory(
    reader: &Reader,
    root: &RootDir,
    requested: &Requested,
    out: &mut Observed,
) -> io::Result<()> {
    let cwd = reader.link("cwd")?;
    let asked = requested.cwd.as_deref().unwrap_or("/");
    out.same_cwd = cwd == asked
        || match (reader.stat("cwd"), root.resolve(asked)) {
            (Ok(here), Ok(there)) => {
                files::statx(&there).is_some_and(|there| (here.st_dev, here.st_ino) == there.file)
            }
            _ => false,
        };
    out.applied.cwd = Some(cwd);
    Ok(())
}

fn executable(
    reader: &Reader,
    root: &RootDir,
    requested: &Requested,
    out: &mut Observed,
) -> io::Result<()> {
    out.applied.executable = Some(reader.link("exe")?);
    let stat = reader.stat("exe")?;
    let privileged = stat.st_mode & 0o111 != 0 && requested.no_new_privs != Some(true);
    let file = (stat.st_dev, stat.st_ino);
    let asked = requested.executable.as_deref().unwrap_or_default();
    let asked = files::find_program(
        root,
        asked,
        requested.cwd.as_deref().unwrap_or("/"),
        &requested.context.path,
    );
    out.program = Some(Program {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        capabilities: privileged && reader.has_file_capabilities(),
        as_asked: match asked {
            Some(found) if found.native => Some(found.file == file),
            Some(_) => None, // a script or a foreign program: its interpreter runs
            None => Some(false),
        },
    });
    Ok(())
}

fn mounts(
    reader: &mut Reader,
    root: &RootDir,
    requested: &Requested,
    out: &mut Observed,
) -> io::Result<()> {
    let table = mountinfo::parse(&reader.read("mountinfo")?);
    let known = |target: &str| table.iter().any(|line| line.mount.target == target);
    let binds = requested.mounts.iter().flatten();
    let all = binds.map(|mount| (mount.target.as_str(), mount.file.is_some()));
    let protected = [&requested.masked_paths, &requested.readonly_paths];
    let protected = protected.into_iter().flatten().flatten();
    let all = all.chain(protected.map(|(path, _)| (path.as_str(), false)));
    for (target, by_file) in all {
        if !by_file && known(target) {
            continue;
        }
        // A link that was made again may lead nowhere.
        let link = !known(target) && requested.context.links.iter().any(|link| link == target);
        let place = if link {
            root.resolve_nofollow(target)
                .ok()
                .and_then(|fd| files::statx(&fd))
        } else {
            root.resolve(target).ok().and_then(|fd| files::statx(&fd))
        };
        match place {
            Some(place) => {
                let found = Target {
                    mount: place.mount,
                    file: place.file,
                    link: link && place.link,
                };
                out.targets.insert(target.to_owned(), found);
            }
            None => out.absent.push(target.to_owned()),
        }
    }
    // Requested targets that are reached by another name get the name that was asked.
    let mut mounts: Vec<Mount> = Vec::with_capacity(table.len());
    for line in table {
        let mut mount = line.mount;
        let asked = out
            .targets
            .iter()
            .find(|(target, found)| found.mount == line.id && **target != mount.target);
        if let Some((target, _)) = asked
            && !requested
                .mounts
                .iter()
                .flatten()
                .any(|other| other.target == mount.target)
        {
            mount.target.clone_from(target);
        }
        mounts.push(mount);
    }
    protected_paths(requested, &mounts, out);
    out.inherited = inherited(requested, &mounts);
    out.applied.mounts = Some(mounts);
    Ok(())
}

/// What became of the paths to be masked and to be made read-only.
fn protected_paths(requested: &Requested, mounts: &[Mount], out: &mut Observed) {
    let last = |path: &str| mounts.iter().rfind(|mount| mount.target == path);
    let read_only = |mount: &Mount| mount.flags.iter().any(|flag| flag == "ro");
    let state = |path: &String, good: &str, is_good: &dyn Fn(&Mount) -> bool| {
        let state = match last(path) {
            Some(mount) if is_good(mount) => good,
            None if out.absent.contains(path) => "absent",
            _ => "as it was",
        };
        (path.clone(), state.to_owned())
    };
    let masked = requested.masked_paths.iter().flatten();
    let masked = masked
        .map(|(path, _)| state(path, "masked", &is_mask))
        .collect();
    let readonly = requested.readonly_paths.iter().flatten();
    let readonly = readonly
        .map(|(path, _)| state(path, "read-only", &read_only))
        .collect();
    out.applied.masked_paths = Some(masked);
    out.applied.readonly_paths = Some(readonly);
}

/// Of the mounts that no request names, those which stand at the same place below the root's
/// directory on the host.
fn inherited(requested: &Requested, mounts: &[Mount]) -> Vec<String> {
    let asked = requested.mounts.as_deref().unwrap_or_default();
    let named = |target: &String| {
        asked.iter().any(|mount| mount.target == *target)
            || requested
                .masked_paths
                .iter()
                .flatten()
                .any(|(path, _)| path == target)
            || requested
                .readonly_paths
                .iter()
                .flatten()
                .any(|(path, _)| path == target)
            || requested.context.tolerated.contains(target)
    };
    let unnamed: Vec<&Mount> = mounts
        .iter()
        .filter(|mount| !named(&mount.target))
        .collect();
    let root = asked.first().filter(|root| root.kind == "bind");
    let (Some(root), false) = (root, unnamed.is_empty()) else {
        return Vec::new();
    };
    let table = || -> io::Result<(String, Vec<mountinfo::Line>)> {
        let fd = open_directory(Path::new(&root.source))?;
        let name = format!("fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let mut own = Reader::own()?;
        Ok((own.link(&name)?, mountinfo::parse(&own.read("mountinfo")?)))
    };
    let Ok((root, table)) = table() else {
        return Vec::new();
    };
    let on_host = |mount: &&&Mount| {
        let place = format!("{root}{}", mount.target);
        let same = |line: &mountinfo::Line| {
            line.mount.target == place && line.mount.source == mount.source
        };
        table.iter().any(same)
    };
    unnamed
        .iter()
        .filter(on_host)
        .map(|mount| mount.target.clone())
        .collect()
}

/// Kernel parameters belong to namespaces: this thread enters them for as long as it reads.
fn sysctls(reader: &Reader, requested: &Requested, out: &mut Observed) {
    let Some(asked) = requested.sysctls.as_ref().filter(|asked| !asked.is_empty()) else {
        out.applied.sysctls = requested.sysctls.as_ref().map(|_| BTreeMap::new());
        return;
    };
    let kinds = [NamespaceKind::Net, NamespaceKind::Ipc, NamespaceKind::Uts];
    let read = || -> io::Result<BTreeMap<String, String>> {
        let mut own = Vec::new();
        let mut theirs = Vec::new();
        for kind in kinds {
            own.push(NamespaceFile::own(kind)?);
            theirs.push((reader.open_namespace(kind.proc_name())?, kind));
        }
        let entered = theirs
            .iter()
            .try_for_each(|(fd, kind)| ns::join(fd, kind.flag()));
        let values = entered.map(|()| {
            asked.keys().filter_map(|file| {
                let path = Path::new("/proc/sys").join(file);
                let text = files::read_small(CWD, &path).ok()?;
                Some((file.clone(), text.trim().to_owned()))
            })
        });
        let values = values.map(Iterator::collect);
        for namespace in own {
            // A thread that cannot return must not go on as if it had.
            namespace.join().unwrap_or_else(|_| std::process::abort());
        }
        values
    };
    match read() {
        Ok(values) => out.applied.sysctls = Some(values),
        Err(error) => out.unread.push(Finding {
            field: "sysctls".into(),
            reason: format!("the namespaces cannot be entered to read them: {error}"),
        }),
    }
}

fn limits(requested: &Requested, out: &mut Observed) {
    let nothing = requested.limits.is_none() && requested.device_rules.is_none();
    let Some(path) = requested.context.cgroup.as_ref().filter(|_| !nothing) else {
        return;
    };
    let group = match Cgroup::open(&PathBuf::from(path)) {
        Ok(group) => group,
        Err(error) => {
            out.unread.push(Finding {
                field: "limits".into(),
                reason: error.to_string(),
            });
            return;
        }
    };
    if let Some(asked) = &requested.limits {
        let controllers = group.controllers().unwrap_or_default();
        out.controllers = controllers.into_iter().collect();
        let mut values = BTreeMap::new();
        let effective = asked.keys().filter(|file| file.starts_with("cpuset."));
        let effective = effective.map(|file| format!("{file}.effective"));
        for file in asked.keys().cloned().chain(effective) {
            if let Ok(text) = group.read(&file) {
                values.insert(file, text.trim().to_owned());
            }
        }
        out.applied.limits = Some(values);
    }
    device_rules(&group, requested, out);
}

fn device_rules(group: &Cgroup, requested: &Requested, out: &mut Observed) {
    let Some(asked) = &requested.device_rules else {
        return;
    };
    match cgroup::device_programs(group) {
        Ok(programs) => {
            let seen: Vec<String> = programs.iter().map(|code| digest::program(code)).collect();
            if seen != *asked && !asked.is_empty() {
                let expected = cgroup::expected_device_program(&requested.context.devices);
                out.same_devices = expected.is_ok_and(|code| seen == [digest::program(&code)]);
            }
            out.applied.device_rules = Some(seen);
        }
        Err(_) if asked.is_empty() => {}
        Err(error) => out.unread.push(Finding {
            field: "device_rules".into(),
            reason: format!("the group's programs cannot be read: {error}"),
        }),
    }
}

/// An open directory in procfs.
pub(super) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
