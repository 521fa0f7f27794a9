//! Single attempts, each told as `ok` or the number of the error: both are answers.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Prints a JSON object: path → `ok` or `errno N`. Nothing is written.
pub(super) fn open_for_writing(paths: &[&str]) -> io::Result<()> {
    let tried = paths.iter().map(|path| {
        let opened = OpenOptions::new().write(true).open(path);
        (*path, told(opened.map(drop)))
    });
    print(&tried.collect::<BTreeMap<_, _>>())
}

/// Prints a JSON object: path → what lies there, as `kind major:minor fs:magic`.
pub(super) fn look(paths: &[&str]) -> io::Result<()> {
    let seen = paths.iter().map(|path| {
        let text = describe(path).unwrap_or_else(|error| told(Err(error)));
        (*path, text)
    });
    print(&seen.collect::<BTreeMap<_, _>>())
}

/// Prints a JSON object: path → how much a file gives, or how many entries a folder has and
/// whether one more can be made.
pub(super) fn content(paths: &[&str]) -> io::Result<()> {
    let seen = paths.iter().map(|path| {
        let text = match fs::read_dir(path) {
            Ok(entries) => {
                let made = fs::File::create(format!("{path}/planted"));
                format!("{} entries, {}", entries.count(), told(made.map(drop)))
            }
            Err(_) => bytes(path),
        };
        (*path, text)
    });
    print(&seen.collect::<BTreeMap<_, _>>())
}

/// Prints how many bytes, at most 64 KiB, the file gives.
pub(super) fn read(path: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", bytes(path))
}

fn bytes(path: &str) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut bytes)) {
        Ok(_) => format!("{} bytes", bytes.len()),
        Err(error) => told(Err(error)),
    }
}

/// Hierarchies of cgroup v1 that a host may have (cgroups(7)).
const HIERARCHIES: [&str; 8] = [
    "memory",
    "rdma",
    "pids",
    "freezer",
    "devices",
    "cpuset",
    "cpu",
    "none,name=systemd",
];

/// One that nobody else has; only the host's cgroup namespace can make it.
const OWN_HIERARCHY: &str = "none,name=berth-cve";

/// Mounts a hierarchy of its own as it is, then every other one as root of a user namespace of its
/// own, and writes the release agents, which would then run on the host (CVE-2022-0492): what they
/// hold already, so nothing changes.
pub(super) fn release_agent() -> io::Result<()> {
    use nix::sched::{CloneFlags, unshare};
    let mut answers = BTreeMap::from([(OWN_HIERARCHY, told(write_agent(OWN_HIERARCHY)))]);
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
    let unshared = unshare(all).map_err(io::Error::from);
    answers.insert("unshare", told(unshared).replace("ok", "done"));
    for hierarchy in HIERARCHIES {
        answers.insert(hierarchy, told(write_agent(hierarchy)));
    }
    print(&answers)
}

fn write_agent(hierarchy: &str) -> io::Result<()> {
    use nix::mount::{MsFlags, mount};
    let target = format!("/tmp/{hierarchy}");
    fs::create_dir_all(&target)?;
    let kind = Some("cgroup");
    let none = MsFlags::empty();
    mount(kind, target.as_str(), kind, none, Some(hierarchy))?;
    let agent = format!("{target}/release_agent");
    let present = fs::read(&agent)?;
    // of nothing, nothing at all would be written
    let same = if present.is_empty() {
        b"\n"
    } else {
        &present[..]
    };
    fs::write(&agent, same)
}

/// Prints the file.
pub(super) fn print_file(path: &str) -> io::Result<()> {
    io::stdout().write_all(&fs::read(path)?)
}

/// Tries what CAP_NET_RAW allows (packet(7)).
pub(super) fn packet_socket() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let made = socket(AddressFamily::PACKET, SocketType::RAW, None);
    writeln!(
        io::stdout(),
        "{}",
        told(made.map(drop).map_err(io::Error::from))
    )
}

fn describe(path: &str) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    let kind = metadata.file_type();
    let kind = if kind.is_char_device() {
        "char"
    } else if kind.is_block_device() {
        "block"
    } else if kind.is_dir() {
        "dir"
    } else if kind.is_file() {
        "file"
    } else {
        "other"
    };
    let device = metadata.rdev();
    let magic = rustix::fs::statfs(path)?.f_type;
    Ok(format!(
        "{kind} {}:{} fs:{magic:x}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    ))
}

fn told(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(error) => format!("errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

fn print(answers: &BTreeMap<&str, String>) -> io::Result<()> {
    serde_json::to_writer(io::stdout(), answers)?;
    writeln!(io::stdout())
}
