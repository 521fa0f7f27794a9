//! `cargo xtask vm -- CMD`: a command in the reference VM, which has full cgroup v2.

mod artifacts;
mod cpio;
mod kernel;
mod qemu;
mod system;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::signal::Interrupts;
use crate::{dist, images, process};
use artifacts::Artifacts;
use qemu::{Accelerator, Guest, Outcome, Run};
pub use system::System;

/// Exit code when the deadline passed, as of timeout(1).
pub const TIMED_OUT: u8 = 124;
/// Exit code when the VM itself failed.
const VM_FAILED: u8 = 125;
/// Exit code after SIGINT or SIGTERM.
const INTERRUPTED: u8 = 130;
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
    /// The larger system, which has podman, docker, containerd and buildah
    #[arg(long)]
    engines: bool,
    /// The larger system with systemd as PID 1
    #[arg(long)]
    systemd: bool,
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
    let system = match (options.systemd, options.engines) {
        (true, _) => System::Systemd,
        (false, true) => System::Engines,
        (false, false) => System::Plain,
    };
    let code = execute(&Order {
        script: &script,
        share: options.share.as_deref(),
        timeout: Duration::from_secs(options.timeout),
        api_port: None,
        system,
    })?;
    Ok(ExitCode::from(code))
}

/// What to do in the VM.
pub struct Order<'a> {
    /// A bash script.
    pub script: &'a str,
    /// A folder the guest may write, at /mnt/rw.
    pub share: Option<&'a Path>,
    /// When the VM is stopped.
    pub timeout: Duration,
    /// Port on this machine's 127.0.0.1 that leads to the guest's API server.
    pub api_port: Option<u16>,
    /// Which system the guest is.
    pub system: System,
}

/// Runs the script in the VM; its exit code, or 124, 125 or 130.
pub fn execute(order: &Order<'_>) -> Result<u8> {
    let cache = Cache::open()?;
    let artifacts = Artifacts::ensure(&cache, order.system)?;
    let accelerator = accelerator(&cache, &artifacts)?;
    let folders = [
        process::workspace().to_owned(),
        // A link to it would lead nowhere in the guest.
        dist::target_folder()?.canonicalize()?,
        cache.path().to_owned(),
    ];
    let guest = Guest {
        script: order.script,
        folders: &folders,
        share: order.share,
        api_port: order.api_port,
        system: order.system,
        accelerator,
    };
    let mut interrupts = Interrupts::take()?;
    let run = Run::start(&artifacts, &guest)?;
    Ok(match run.wait(order.timeout, &mut interrupts)? {
        Outcome::Exit(code) => code,
        Outcome::Interrupted => INTERRUPTED,
        Outcome::TimedOut => {
            let seconds = order.timeout.as_secs();
            eprintln!("xtask: the VM was stopped after {seconds} s");
            TIMED_OUT
        }
        Outcome::Failed => {
            eprintln!("xtask: the VM ended without an exit code");
            VM_FAILED
        }
    })
}

/// After [`setup`]: runs this program's verb with these arguments. The logs of a failed
/// tour are copied to the share.
pub fn tour_script(arguments: &[&str]) -> String {
    let words: Vec<String> = arguments.iter().map(|word| quote(word)).collect();
    format!(
        "/data/xtask {} --prebuilt {PROGRAMS}; code=$?\n\
         cp /tmp/berth-tour-*/*.log /mnt/rw/ 2>/dev/null\n\
         exit $code\n",
        words.join(" "),
    )
}

/// After [`setup`]: brings a cluster up beside a registry with the images, puts a
/// kubeconfig for `api_port` on the share, says `hello` and stays.
pub fn cluster_script(api_port: u16, hello: &str) -> String {
    format!(
        "/data/xtask registry >/dev/null &\n\
         {PROGRAMS}/berth up >/mnt/rw/berth.log 2>&1 & up=$!\n\
         export KUBECONFIG=/var/lib/berth/admin.conf\n\
         until kubectl wait --for=condition=Ready nodes --all >/dev/null 2>&1; do\n  \
         kill -0 $up || {{ cat /mnt/rw/berth.log >&2; exit 1; }}; sleep 0.5\n\
         done\n\
         sed 's,https://.*,https://127.0.0.1:{api_port},' $KUBECONFIG >/mnt/rw/admin.conf\n\
         echo {}\n\
         wait $up\n",
        quote(hello),
    )
}

/// Where the guest has the programs after [`setup`].
pub const PROGRAMS: &str = "/data/dist";

/// A script that copies these programs, this one and the images cached here onto the
/// guest's disk: what runs from this machine's folders is read through 9p at every start.
pub fn setup(programs: &Path) -> Result<String> {
    let images = images::ensure(&Cache::open()?)?;
    Ok(format!(
        "mkdir -p /data/cache/berth && cp -a {} /data/cache/berth/\n\
         cp -aL {} {PROGRAMS} && cp {} /data/xtask\n\
         export XDG_CACHE_HOME=/data/cache\n",
        in_guest(&images),
        in_guest(programs),
        in_guest(&std::env::current_exe()?),
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
        api_port: None,
        system: System::Plain,
        accelerator: Accelerator::Kvm,
    };
    let run = Run::start(artifacts, &guest)?.quiet();
    let outcome = run.wait(PROBE_WITHIN, &mut Interrupts::take()?)?;
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

/// Where the guest sees an absolute path of this machine, quoted.
pub fn in_guest(path: &Path) -> String {
    quote(&format!("/host{}", path.display()))
}

/// The word as bash reads it back unchanged.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
