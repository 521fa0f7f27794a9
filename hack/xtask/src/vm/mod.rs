//! `cargo xtask vm -- CMD`: a command in the reference VM, which has full cgroup v2.

mod artifacts;
mod cpio;
mod kernel;
mod qemu;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::{dist, images, process};
use artifacts::Artifacts;
use qemu::{Accelerator, Guest, Outcome, Run};

/// Exit code when the deadline passed, as of timeout(1).
pub const TIMED_OUT: u8 = 124;
/// Exit code when the VM itself failed.
const VM_FAILED: u8 = 125;
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// Flags of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Options {
    /// Seconds until the VM is stopped; the exit code is then 124
    #[arg(long, default_value_t = 1800)]
    timeout: u64,
    /// A folder the guest may write, at /mnt/rw
    #[arg(long)]
    share: Option<PathBuf>,
    /// The command (one word: a bash script); the workspace is at its own path, read-only; /data is a disk
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs the command and returns its exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let script = match options.command.as_slice() {
        [script] => format!("{script}\n"),
        words => words
            .iter()
            .map(|word| quote(word))
            .collect::<Vec<_>>()
            .join(" "),
    };
    let code = execute(
        &script,
        options.share.as_deref(),
        Duration::from_secs(options.timeout),
    )?;
    Ok(ExitCode::from(code))
}

/// Runs a bash script in the VM; its exit code, or 124 or 125.
pub fn execute(script: &str, share: Option<&std::path::Path>, timeout: Duration) -> Result<u8> {
    let cache = Cache::open()?;
    let artifacts = Artifacts::ensure(&cache)?;
    let accelerator = accelerator(&cache, &artifacts)?;
    let folders = [
        process::workspace().to_owned(),
        dist::target_folder()?,
        cache.path().to_owned(),
    ];
    let guest = Guest {
        script,
        folders: &folders,
        share,
        accelerator,
    };
    Ok(match Run::start(&artifacts, &guest)?.wait(timeout)? {
        Outcome::Exit(code) => code,
        Outcome::TimedOut => {
            eprintln!("xtask: the VM was stopped after {} s", timeout.as_secs());
            TIMED_OUT
        }
        Outcome::Failed => {
            eprintln!("xtask: the VM ended without an exit code");
            VM_FAILED
        }
    })
}

/// A script that runs this program's verb in the VM with what is built and cached here.
pub fn tour_script(arguments: &[&str]) -> Result<String> {
    let images = images::ensure(&Cache::open()?)?;
    let at = |path: &std::path::Path| quote(&path.display().to_string());
    let words: Vec<String> = arguments.iter().map(|word| quote(word)).collect();
    Ok(format!(
        "mkdir -p /data/cache/berth && cp -a {} /data/cache/berth/\n\
         cp -a {} /data/dist && cp {} /data/xtask\n\
         export XDG_CACHE_HOME=/data/cache\n\
         /data/xtask {} --prebuilt /data/dist",
        at(&images),
        at(&dist::target_folder()?.join("dist")),
        at(&std::env::current_exe()?),
        words.join(" "),
    ))
}

/// Hardware virtualisation where a probe boot works: some hosts offer /dev/kvm and
/// cannot run a stock kernel on it. The answer is kept until the machine reboots.
fn accelerator(cache: &Cache, artifacts: &Artifacts) -> Result<Accelerator> {
    if std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Tcg);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let known = cache.folder("vm-kvm")?.join(boot.trim());
    if let Ok(answer) = std::fs::read_to_string(&known) {
        return Ok(if answer == "kvm" {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        });
    }
    let guest = Guest {
        script: "true\n",
        folders: &[],
        share: None,
        accelerator: Accelerator::Kvm,
    };
    let outcome = Run::start(artifacts, &guest)?.quiet().wait(PROBE_WITHIN)?;
    let works = outcome == Outcome::Exit(0);
    std::fs::write(&known, if works { "kvm" } else { "tcg" })?;
    eprintln!(
        "xtask: the VM runs on {}",
        if works { "KVM" } else { "QEMU's translator" }
    );
    Ok(if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

/// The word as bash reads it back unchanged.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
