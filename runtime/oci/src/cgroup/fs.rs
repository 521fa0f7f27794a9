//! cgroup v2 through its files, each opened relative to the group's open directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::resources;
use super::{Stats, SystemdError};
use crate::spec::config::LinuxResources;

/// Room for what most files of a group hold, in bytes.
const READ_AT_ONCE: usize = 1024;
/// Magic number of a cgroup2 file system (linux/magic.h).
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Controllers that every container's group gets where the host has them: limits and figures of
/// pods need them. Others only on request, since a controller in use here cannot be mounted as v1.
const USUAL: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Why an operation on a cgroup failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There is no cgroup2 hierarchy on this host.
    #[error("no cgroup2 file system at /sys/fs/cgroup or /sys/fs/cgroup/unified")]
    NoHierarchy,
    /// A path that is not a plain relative path.
    #[error("`{0}` is not a relative path below the cgroup2 mount")]
    BadPath(PathBuf),
    /// A file or directory of the group failed.
    #[error("cannot {action} `{path}`")]
    Access {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A value that the kernel's format cannot express.
    #[error("{field}: {reason}")]
    BadValue {
        /// The field of the spec.
        field: String,
        /// Why.
        reason: String,
    },
    /// systemd did not make or end the group's scope.
    #[error("systemd: {0}")]
    Systemd(#[from] SystemdError),
    /// Processes remain after the time allowed.
    #[error("`{0}` still has processes")]
    Busy(PathBuf),
}

impl CgroupError {
    /// Whether the group or file does not exist; below a file there is no group either.
    pub fn is_not_found(&self) -> bool {
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        matches!(self, CgroupError::Access { source, .. } if absent.contains(&source.kind()))
    }

    /// Whether the kernel's reason has this number.
    pub(super) fn is_errno(&self, errno: i32) -> bool {
        matches!(self, CgroupError::Access { source, .. } if source.raw_os_error() == Some(errno))
    }
}

/// The host's cgroup2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Controllers it has at its root; empty where v1 took them.
    pub controllers: BTreeSet<String>,
}

impl Host {
    /// Finds the hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid host.
    pub fn probe() -> Result<Host, CgroupError> {
        let root = Self::root()?;
        let controllers = root.read("cgroup.controllers")?;
        let controllers = controllers.split_whitespace().map(str::to_owned).collect();
        let mount = root.path;
        Ok(Host { mount, controllers })
    }

    fn root() -> Result<Cgroup, CgroupError> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let mut found = mounts.iter().map(|mount| Cgroup::open(Path::new(mount)));
        let found = found.find_map(Result::ok);
        found.ok_or(CgroupError::NoHierarchy)
    }
}

/// Where the host's cgroup2 hierarchy is mounted; looked for once.
pub fn mount_point() -> Result<&'static Path, CgroupError> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(mount) = FOUND.get() {
        return Ok(mount);
    }
    let root = Host::root()?;
    Ok(FOUND.get_or_init(|| root.path))
}

/// The state of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Events {
    /// A process is in it or below.
    pub populated: bool,
    /// All its processes are frozen.
    pub frozen: bool,
}

/// An open cgroup.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Cgroup {
    /// Opens an existing group by its absolute path.
    pub fn open(path: &Path) -> Result<Cgroup, CgroupError> {
        let access = |source| CgroupError::Access {
            action: "open",
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| access(e.into()))?;
        let kind = rustix::fs::fstatfs(&dir).map_err(|e| access(e.into()))?;
        if kind.f_type as i64 != CGROUP2_MAGIC {
            return Err(access(Errno::NOTSUP.into()));
        }
        Ok(Cgroup {
            path: path.to_owned(),
            dir,
        })
    }

    /// Opens the group in which a process sits.
    pub fn of_process(pid: i32) -> Result<Cgroup, CgroupError> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(1 << 16).read_to_string(&mut text));
        read.map_err(|source| CgroupError::Access {
            action: "read",
            path,
            source,
        })?;
        // The line of cgroup v2 has hierarchy 0 and no controllers (cgroups(7)).
        let place = text
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or(CgroupError::NoHierarchy)?;
        Cgroup::open(&mount_point()?.join(place))
    }

    /// Makes the group `relative` (and its parents) below the host's mount and opens it. The usual
    /// controllers are handed down on the way, as far as the host has them and the kernel allows.
    pub fn create(host: &Host, relative: &Path) -> Result<Cgroup, CgroupError> {
        Self::create_for(host, relative, &LinuxResources::default())
    }

    /// As [`Cgroup::create`], with the further controllers that `resources` needs.
    pub fn create_for(
        host: &Host,
        relative: &Path,
        resources: &LinuxResources,
    ) -> Result<Cgroup, CgroupError> {
        let asked = resources::settings(resources)?;
        let needed = |name: &String| {
            USUAL.contains(&name.as_str()) || asked.iter().any(|setting| setting.controller == name)
        };
        let controllers = host
            .controllers
            .iter()
            .filter(|name| needed(name))
            .cloned()
            .collect();
        let mut group = Cgroup::open(&host.mount)?;
        for part in relative.components() {
            let std::path::Component::Normal(name) = part else {
                return Err(CgroupError::BadPath(relative.to_owned()));
            };
            group.delegate(&controllers);
            group = group.child(Path::new(name))?;
        }
        if group.path == host.mount {
            return Err(CgroupError::BadPath(relative.to_owned()));
        }
        Ok(group)
    }

    /// Makes (if missing) and opens a group directly below this one.
    pub fn child(&self, name: &Path) -> Result<Cgroup, CgroupError> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Cgroup::open(&path),
            Err(errno) => Err(CgroupError::Access {
                action: "make",
                path,
                source: errno.into(),
            }),
        }
    }

    /// Absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Controllers that can be used in this group.
    pub fn controllers(&self) -> Result<BTreeSet<String>, CgroupError> {
        Ok(self
            .read("cgroup.controllers")?
            .split_whitespace()
            .map(str::to_owned)
            .collect())
    }

    /// Puts a process into the group.
    pub fn add_process(&self, pid: i32) -> Result<(), CgroupError> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Process ids in this very group (not below it).
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        Ok(self
            .read("cgroup.procs")?
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect())
    }

    /// Process ids in this group and in all below it. Groups and processes that go meanwhile are
    /// left out.
    pub fn all_processes(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = match self.processes() {
            // A threaded group has none of its own: its processes stand in the group above.
            Err(CgroupError::Access { source, .. })
                if source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                Vec::new()
            }
            pids => pids?,
        };
        for name in children(self, Path::new(".")) {
            if let Ok(group) = Cgroup::open(&self.path.join(name)) {
                pids.extend(group.all_processes().unwrap_or_default());
            }
        }
        Ok(pids)
    }

    /// Kills every process in the group and below, re-parented ones included (`cgroup.kill`,
    /// Linux 5.14).
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// Freezes or thaws every process in the group and below; returns once the kernel confirms it,
    /// at most 10 s later.
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.frozen()? != frozen {
            if Instant::now() > deadline {
                return Err(CgroupError::Busy(self.path.clone()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether every process in the group is frozen.
    pub fn frozen(&self) -> Result<bool, CgroupError> {
        Ok(self.events()?.frozen)
    }

    /// Whether any process is in the group or below.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        Ok(self.events()?.populated)
    }

    /// How often the OOM killer chose a process of this group (`memory.events` oom_kill);
    /// `None` without the memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        keyed(&self.read("memory.events").ok()?, "oom_kill")
    }

    /// What the group uses.
    pub fn stats(&self) -> Stats {
        let text = |name: &str| self.read(name).ok();
        let number = |name: &str| text(name)?.trim().parse().ok();
        let memory = text("memory.stat").unwrap_or_default();
        let current: Option<u64> = number("memory.current");
        Stats {
            cpu_usage_usec: text("cpu.stat").and_then(|stat| keyed(&stat, "usage_usec")),
            memory_current: current,
            memory_working_set: current
                .map(|all| all.saturating_sub(keyed(&memory, "inactive_file").unwrap_or(0))),
            memory_max: number("memory.max"),
            memory_rss: keyed(&memory, "anon"),
            page_faults: keyed(&memory, "pgfault"),
            major_page_faults: keyed(&memory, "pgmajfault"),
            swap_current: number("memory.swap.current"),
            pids_current: number("pids.current"),
        }
    }

    /// One of the group's files, for poll(2): `PRI` says that its text has changed since it was read.
    pub fn watch(&self, file: &str) -> Result<OwnedFd, CgroupError> {
        let opened = self.open_file(file, OFlags::RDONLY).and_then(|mut handle| {
            handle.read_to_end(&mut Vec::new())?; // what was before does not count
            Ok(OwnedFd::from(handle))
        });
        opened.map_err(|source| CgroupError::Access {
            action: "watch",
            path: self.path.join(file),
            source,
        })
    }

    /// Sizes of huge pages that the group counts, such as `2MB`.
    pub fn huge_page_sizes(&self) -> Vec<String> {
        let Ok(entries) = Dir::read_from(&self.dir) else {
            return Vec::new();
        };
        let names = entries.filter_map(Result::ok);
        let names = names.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        let size = |name: String| {
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
            (!size.contains('.')).then(|| size.to_owned())
        };
        names.filter_map(size).collect()
    }

    /// Removes the group and those below it, deepest first. A group that is gone already is fine.
    /// Waits up to 5 s for killed processes to leave.
    pub fn remove(self) -> Result<(), CgroupError> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let Some((parent, name)) = self.path.parent().zip(self.path.file_name()) else {
            return Err(CgroupError::BadPath(self.path));
        };
        let parent = match Cgroup::open(parent) {
            Err(CgroupError::Access { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(());
            }
            opened => opened?,
        };
        remove_below(&parent, Path::new(name), deadline)
    }

    /// The text of one of the group's files, at most 1 MiB.
    pub fn read(&self, file: &str) -> Result<String, CgroupError> {
        let mut text = String::with_capacity(READ_AT_ONCE);
        let opened = self.open_file(file, OFlags::RDONLY);
        match opened.and_then(|handle| handle.take(1 << 20).read_to_string(&mut text)) {
            Ok(_) => Ok(text),
            Err(source) => Err(CgroupError::Access {
                action: "read",
                path: self.path.join(file),
                source,
            }),
        }
    }

    /// Writes one of the group's files.
    pub fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        let opened = self.open_file(file, OFlags::WRONLY);
        opened
            .and_then(|mut handle| handle.write_all(value.as_bytes()))
            .map_err(|source| CgroupError::Access {
                action: "write",
                path: self.path.join(file),
                source,
            })
    }

    fn open_file(&self, file: &str, flags: OFlags) -> io::Result<File> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(File::from(rustix::fs::openat2(
            &self.dir,
            file,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )?))
    }

    /// Both of what `cgroup.events` tells.
    pub fn events(&self) -> Result<Events, CgroupError> {
        let text = self.read("cgroup.events")?;
        Ok(Events {
            populated: keyed(&text, "populated") == Some(1),
            frozen: keyed(&text, "frozen") == Some(1),
        })
    }

    /// Hands the controllers down, one at a time: one that the kernel refuses (EBUSY where processes
    /// sit here, ENOENT where it is not ours) must not keep the others back.
    ///
    /// A group with processes hands nothing down. The kernel would not refuse the controllers that
    /// know threads, but the groups below would be fit for threads alone (cgroup-v2.rst, "Threads").
    fn delegate(&self, controllers: &BTreeSet<String>) {
        let Ok(present) = self.read("cgroup.subtree_control") else {
            return;
        };
        let present: BTreeSet<&str> = present.split_whitespace().collect();
        let is_absent = |name: &&String| !present.contains(name.as_str());
        let absent: Vec<&String> = controllers.iter().filter(is_absent).collect();
        if absent.is_empty() || self.is_inner_with_processes() {
            return;
        }
        for controller in absent {
            let _ = self.write("cgroup.subtree_control", &format!("+{controller}"));
        }
    }

    /// Whether processes sit in this very group; in the root of the hierarchy they may.
    fn is_inner_with_processes(&self) -> bool {
        let is_root = self.read("cgroup.type").is_err();
        !is_root && self.processes().is_ok_and(|found| !found.is_empty())
    }
}

fn remove_below(parent: &Cgroup, name: &Path, deadline: Instant) -> Result<(), CgroupError> {
    let path = parent.path.join(name);
    loop {
        match rustix::fs::unlinkat(&parent.dir, name, rustix::fs::AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < deadline => {}
            Err(Errno::BUSY) => return Err(CgroupError::Busy(path)),
            Err(errno) => {
                return Err(CgroupError::Access {
                    action: "remove",
                    path,
                    source: errno.into(),
                });
            }
        }
        for child in children(parent, name) {
            let group = match Cgroup::open(&path) {
                Ok(group) => group,
                Err(_) => break,
            };
            remove_below(&group, &child, deadline)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn children(parent: &Cgroup, name: &Path) -> Vec<PathBuf> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Ok(dir) = rustix::fs::openat(&parent.dir, name, flags, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::new(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry.file_type().is_dir() && !entry.file_name().to_bytes().starts_with(b".")
        })
        .map(|entry| {
            PathBuf::from(std::ffi::OsStr::new(
                entry.file_name().to_str().unwrap_or_default(),
            ))
        })
        .collect()
}

/// The number after `key ` at the start of a line (flat keyed files, cgroup-v2.rst).
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}
