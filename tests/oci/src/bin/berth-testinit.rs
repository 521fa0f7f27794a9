//! The probe: runs as a container's program and tells, or tries, what a test asks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::ExitCode;
use std::time::Duration;

use berth_sys::sched;
use berth_test_oci::Report;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let name = std::env::args().next().unwrap_or_default();
    if let Some(file) = ["uid_map", "gid_map"].iter().find(|file| {
        let program = format!("new{}", file.replace('_', ""));
        name.rsplit('/').next() == Some(&program)
    }) {
        return map_ids(file, &args);
    }
    let done = match args.as_slice() {
        ["report", ..] => report(),
        ["read", path] => read(path),
        ["list", path] => list(path),
        ["write", path] => attempt(
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .and_then(|mut file| file.write_all(b"x")),
        ),
        ["stat", paths @ ..] => paths.iter().try_for_each(|path| stat(path)),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(99)),
        ["wait"] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        ["echo", words @ ..] => writeln!(io::stdout(), "{}", words.join(" ")),
        ["print", paths @ ..] => paths
            .iter()
            .try_for_each(|path| io::stdout().write_all(&fs::read(path)?)),
        ["use", bytes] => use_memory(bytes.parse().unwrap_or(0)),
        ["threads", wanted] => threads(wanted.parse().unwrap_or(0)),
        ["mkdir", paths @ ..] => paths
            .iter()
            .try_for_each(|path| attempt(fs::create_dir(path))),
        ["schedule"] => schedule(),
        ["unshare"] => attempt(unshare()),
        _ => Err(io::Error::other("unknown request")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testinit: {error}");
            ExitCode::from(98)
        }
    }
}

/// In the place of newuidmap(1), set-user-id root: writes a map for whoever asks.
fn map_ids(file: &str, args: &[&str]) -> ExitCode {
    let (pid, ids) = args.split_first().unwrap_or((&"0", &[]));
    let lines: Vec<String> = ids.chunks(3).map(|line| line.join(" ")).collect();
    match fs::write(format!("/proc/{pid}/{file}"), lines.join("\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints `ok`, or the error's number: both are answers.
fn attempt(result: io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => writeln!(io::stdout(), "ok"),
        Err(error) => writeln!(io::stdout(), "errno {}", error.raw_os_error().unwrap_or(0)),
    }
}

/// Where and when this process runs, one fact a line.
fn schedule() -> io::Result<()> {
    let scheduler = sched::scheduler()?;
    let (class, level) = sched::io_priority()?;
    let (mode, nodes) = sched::memory_policy()?;
    let out = &mut io::stdout();
    writeln!(out, "policy {} nice {}", scheduler.policy, scheduler.nice)?;
    writeln!(
        out,
        "priority {} flags {}",
        scheduler.priority, scheduler.flags
    )?;
    writeln!(out, "io {class}:{level}")?;
    writeln!(out, "cpus {:?}", sched::affinity()?.numbers())?;
    writeln!(out, "personality {}", sched::personality()?)?;
    writeln!(out, "memory {mode} {:?}", nodes.numbers())
}

fn unshare() -> io::Result<()> {
    fs::File::open("/proc/self/ns/uts").map(drop)?;
    Ok(rustix::system::sethostname(b"changed")?)
}

/// Fills so many bytes of memory.
fn use_memory(bytes: usize) -> io::Result<()> {
    let filled = vec![1_u8; bytes];
    writeln!(
        io::stdout(),
        "{} filled",
        filled.iter().map(|b| usize::from(*b)).sum::<usize>()
    )
}

/// Starts so many threads, as far as it may, and tells how many there were.
fn threads(wanted: usize) -> io::Result<()> {
    let mut started = 0;
    let refused = (0..wanted).find_map(|_| {
        let sleep = || std::thread::sleep(Duration::from_secs(3600));
        let thread = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(sleep);
        started += usize::from(thread.is_ok());
        thread.err()
    });
    write!(io::stdout(), "{started} started, ")?;
    attempt(refused.map_or(Ok(()), Err))
}

fn read(path: &str) -> io::Result<()> {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut bytes)) {
        Ok(_) => writeln!(io::stdout(), "{} bytes", bytes.len()),
        Err(error) => attempt(Err(error)),
    }
}

fn list(path: &str) -> io::Result<()> {
    match fs::read_dir(path) {
        Ok(entries) => writeln!(io::stdout(), "{} entries", entries.count()),
        Err(error) => attempt(Err(error)),
    }
}

/// `path kind mode uid:gid major:minor`, one a line.
fn stat(path: &str) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => {
            return writeln!(
                io::stdout(),
                "{path} errno {}",
                error.raw_os_error().unwrap_or(0)
            );
        }
    };
    let kind = metadata.file_type();
    let kind = if kind.is_symlink() {
        format!("-> {}", fs::read_link(path)?.display())
    } else if kind.is_char_device() {
        let device = metadata.rdev();
        format!(
            "char {}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device)
        )
    } else if kind.is_block_device() {
        "block".into()
    } else if kind.is_fifo() {
        "fifo".into()
    } else if kind.is_dir() {
        "dir".into()
    } else {
        "file".into()
    };
    let mode = metadata.mode() & 0o7777;
    writeln!(
        io::stdout(),
        "{path} {kind} {mode:o} {}:{}",
        metadata.uid(),
        metadata.gid()
    )
}

fn report() -> io::Result<()> {
    let lines = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut report = Report {
        pid: std::process::id(),
        cwd: std::env::current_dir()
            .map_or_else(|e| e.to_string(), |path| path.display().to_string()),
        args: std::env::args().skip(1).collect(),
        env: environment(),
        mounts: lines("/proc/self/mountinfo")
            .lines()
            .map(str::to_owned)
            .collect(),
        oom_score_adj: lines("/proc/self/oom_score_adj").trim().to_owned(),
        hostname: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        cgroup: lines("/proc/self/cgroup")
            .lines()
            .find(|line| line.starts_with("0::"))
            .unwrap_or_default()
            .to_owned(),
        ..Report::default()
    };
    for line in lines("/proc/self/status").lines() {
        if let Some((key, value)) = line.split_once(':') {
            report
                .status
                .insert(key.to_owned(), value.trim().to_owned());
        }
    }
    report.fds = links("/proc/self/fd")?
        .into_iter()
        .filter_map(|(fd, to)| Some((fd.parse().ok()?, to)))
        .collect();
    report.namespaces = links("/proc/self/ns")?;
    for line in lines("/proc/self/limits").lines().skip(1) {
        let (name, rest) = line.split_at(line.len().min(26));
        let mut columns = rest.split_whitespace();
        let pair = (
            columns.next().unwrap_or_default().to_owned(),
            columns.next().unwrap_or_default().to_owned(),
        );
        report.limits.insert(name.trim().to_owned(), pair);
    }
    serde_json::to_writer(io::stdout(), &report)?;
    writeln!(io::stdout())
}

fn environment() -> Vec<String> {
    // As the kernel got it: std's map would lose order and doubles.
    let bytes = fs::read("/proc/self/environ").unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|e| String::from_utf8_lossy(e).into())
        .collect()
}

fn links(folder: &str) -> io::Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // The descriptor of this very listing is gone by the time it is read.
        if let Ok(target) = fs::read_link(entry.path())
            && target.as_os_str().as_bytes()
                != format!("/proc/{}/fd", std::process::id()).as_bytes()
        {
            out.insert(
                entry.file_name().to_string_lossy().into_owned(),
                target.display().to_string(),
            );
        }
    }
    Ok(out)
}
