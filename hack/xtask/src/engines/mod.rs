//! `cargo xtask engines`: container engines with runc and with berth-oci, the same script for
//! both, what they print compared.

mod cri;
mod transcript;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cache::Cache;
use crate::vm::{self, Order, System};
use crate::{dist, peers, process};
use transcript::Transcript;

/// Engines with a script of that name in `tests/engines`.
const ENGINES: [&str; 4] = ["podman", "docker", "containerd", "buildah"];
/// The runtime that says what is right, and ours, each at this place in the guest.
const RUNTIMES: [(&str, &str); 2] = [
    ("runc", "/data/runc"),
    ("berth-oci", "/data/dist/berth-oci"),
];
/// What holds the sandboxes of containerd.
const PAUSE: &str = "/data/dist/berth-pause";
/// The VM is stopped after this.
const LIMIT: Duration = Duration::from_mins(60);
/// Seconds after which a script hangs.
const SCRIPT_LIMIT: u32 = 1200;

/// Flags of `cargo xtask engines`.
#[derive(clap::Args)]
pub struct Options {
    /// Only this engine: podman, docker, containerd or buildah; may be repeated
    #[arg(long)]
    engine: Vec<String>,
    /// With systemd as PID 1 of the VM, which then makes the cgroups
    #[arg(long)]
    systemd: bool,
    /// A folder that keeps what the scripts said
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Use the berth-oci of this folder instead of building it
    #[arg(long, hide = true)]
    prebuilt: Option<PathBuf>,
    #[command(flatten)]
    kubelet: cri::Pods,
}

/// Runs the scripts in one session of the VM and compares; fails where a step differs.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.kubelet.run()? {
        return Ok(ExitCode::SUCCESS);
    }
    let programs = match &options.prebuilt {
        Some(folder) => folder.canonicalize()?,
        None => dist::build()?,
    };
    let engines = chosen(&options.engine)?;
    let temporary = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
    let share = match &options.logs {
        Some(folder) => {
            fs::create_dir_all(folder)?;
            folder.canonicalize()?
        }
        None => temporary.path().to_owned(),
    };
    let system = match options.systemd {
        true => System::Systemd,
        false => System::Engines,
    };
    let code = vm::execute(&Order {
        script: &script(&programs, &engines, system)?,
        share: Some(&share),
        timeout: LIMIT,
        api_port: None,
        system,
    })?;
    if code != 0 {
        bail!("the run in the VM ended with {code}");
    }
    let (mut equal, mut different) = (0, 0);
    for engine in engines {
        let [expected, found] =
            RUNTIMES.map(|(runtime, _)| Transcript::read(&share.join(said(engine, runtime))));
        let (expected, found) = (expected?, found?);
        for step in expected.compare(&found) {
            let verdict = match &step.difference {
                None => "equal",
                Some(_) => "DIFFERS",
            };
            println!("{engine:<12} {:<20} {verdict}", step.name);
            match step.difference {
                None => equal += 1,
                Some(difference) => {
                    print!("{difference}");
                    different += 1;
                }
            }
        }
    }
    println!("engines: {equal} steps equal, {different} differ");
    Ok(match different {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn chosen(named: &[String]) -> Result<Vec<&'static str>> {
    for name in named {
        if !ENGINES.contains(&name.as_str()) {
            bail!("no engine {name}; there are {}", ENGINES.join(", "));
        }
    }
    let wanted = |engine: &&str| named.is_empty() || named.iter().any(|name| name == engine);
    Ok(ENGINES.into_iter().filter(wanted).collect())
}

/// Each engine with each runtime, beside a registry that has our images.
fn script(programs: &Path, engines: &[&str], system: System) -> Result<String> {
    let mut script = vm::setup(programs)?;
    let runc = peers::runc(&Cache::open()?)?.program("runc");
    script.push_str(&format!("cp {} {}\n", vm::in_guest(&runc), RUNTIMES[0].1));
    script.push_str(
        "/data/xtask registry >/tmp/registry 2>&1 &\n\
         until grep -q web:2 /tmp/registry; do sleep 0.3; done\n",
    );
    let cgroups = match system.has_systemd() {
        true => "systemd",
        false => "cgroupfs",
    };
    let scripts = process::workspace().join("tests/engines");
    for engine in engines {
        for (name, path) in RUNTIMES {
            let said = said(engine, name);
            let program = scripts.join(format!("{engine}.sh"));
            let program = vm::quote(&program.display().to_string());
            script.push_str(&format!(
                "mkdir -p /data/{said}; SECONDS=0\n\
                 RUNTIME={path} RUNTIME_NAME={name} CGROUPS={cgroups} SCRATCH=/data/{said} \
                 XTASK=/data/xtask PAUSE={PAUSE} \
                 timeout {SCRIPT_LIMIT} bash {program} >/mnt/rw/{said} 2>/mnt/rw/{said}.log\n\
                 echo \"exit $?\" >>/mnt/rw/{said}; echo \"{engine} with {name}: $SECONDS s\"\n"
            ));
        }
    }
    script.push_str("true\n");
    Ok(script)
}

/// The file of what a script says.
fn said(engine: &str, runtime: &str) -> String {
    format!("{engine}-{runtime}")
}
