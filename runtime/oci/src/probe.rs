//! `berth-oci probe`, run by `berth audit probe` inside of a sandbox: tells as JSON what this
//! very process is and may do, as the kernel answers from within.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use berth_oci::capability;
use serde_json::{Map, Value, json};

/// Files that a sandbox should not open so, and whether for writing. Opening changes nothing.
const ATTEMPTS: [(&str, bool); 12] = [
    ("/dev/kmsg", false),
    ("/dev/mem", false),
    ("/proc/kcore", false),
    ("/proc/keys", false),
    ("/proc/sched_debug", false),
    ("/proc/sys/fs/binfmt_misc/register", true),
    ("/proc/sys/kernel/core_pattern", true),
    ("/proc/sys/kernel/modprobe", true),
    ("/proc/sysrq-trigger", true),
    ("/proc/timer_list", false),
    ("/sys/firmware", false),
    ("/sys/kernel/uevent_helper", true),
];

/// Runs the probe if the command line asks for it: `probe` reports, `probe hold` keeps a
/// sandbox until it is killed.
pub fn run_if_asked() -> Option<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["probe"] => {}
        ["probe", "hold"] => loop {
            std::thread::sleep(Duration::from_secs(3600));
        },
        _ => return None,
    }
    let told = writeln!(std::io::stdout(), "{}", report());
    Some(ExitCode::from(u8::from(told.is_err())))
}

fn report() -> Value {
    let status = status();
    let field = |name: &str| status.get(name).map_or("", String::as_str);
    let set = |name: &str| {
        let mask = u64::from_str_radix(field(name), 16).unwrap_or_default();
        json!(capability::names(mask))
    };
    let numbers = |name: &str| -> Vec<u32> {
        let words = field(name).split_whitespace();
        words.filter_map(|word| word.parse().ok()).collect()
    };
    json!({
        "capabilities": {
            "bounding": set("CapBnd"),
            "effective": set("CapEff"),
            "permitted": set("CapPrm"),
            "inheritable": set("CapInh"),
            "ambient": set("CapAmb"),
        },
        "no_new_privs": field("NoNewPrivs") == "1",
        "seccomp": { "mode": match field("Seccomp") {
            "1" => "strict",
            "2" => "filter",
            _ => "disabled",
        }, "filters": field("Seccomp_filters") },
        "uids": numbers("Uid"),
        "gids": numbers("Gid"),
        "groups": numbers("Groups"),
        "umask": field("Umask"),
        "lsm_label": read("/proc/self/attr/current").trim_matches(['\0', '\n']),
        "namespaces": links("/proc/self/ns"),
        "mounts": lines("/proc/self/mountinfo"),
        "cgroup": lines("/proc/self/cgroup"),
        "rlimits": lines("/proc/self/limits"),
        "oom_score_adj": read("/proc/self/oom_score_adj").trim().parse::<i32>().ok(),
        "descriptors": links("/proc/self/fd"),
        "cwd": std::env::current_dir().ok(),
        "environment": std::env::vars_os()
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>(),
        "attempts": ATTEMPTS.iter().map(attempt).collect::<Map<_, _>>(),
    })
}

/// The lines of proc_pid_status(5) by name.
fn status() -> BTreeMap<String, String> {
    let text = read("/proc/self/status");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the probe is inside: every path is its own"
)]
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn lines(path: &str) -> Vec<String> {
    read(path).lines().map(str::to_owned).collect()
}

fn links(folder: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((name, target.to_string_lossy().into_owned()))
        })
        .collect()
}

fn attempt((path, write): &(&str, bool)) -> (String, Value) {
    let opened = std::fs::OpenOptions::new()
        .read(!write)
        .write(*write)
        .open(path);
    let how = if *write { "write" } else { "read" };
    let outcome = match opened {
        Ok(_) => "opened".to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => "not there".to_owned(),
        Err(error) => error.to_string(),
    };
    (format!("{how} {path}"), json!(outcome))
}
