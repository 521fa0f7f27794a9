//! `cargo xtask up`: a cluster on this machine from a fresh clone, or the tour of it.

mod node;
mod smoke;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cache::Cache;
use crate::registry::Registry;
use crate::signal::{Ended, Interrupts};
use crate::{dist, preflight, registry, vm};
use node::Node;
pub use node::{limits_are_enforced, tail};

const VM_TOUR_LIMIT: Duration = Duration::from_mins(25);
const VM_STAY_LIMIT: Duration = Duration::from_hours(24 * 365);

/// Flags of `cargo xtask up`.
#[derive(clap::Args)]
pub struct Options {
    /// Take the tour with kubectl, then remove everything
    #[arg(long)]
    smoke: bool,
    /// Print the tour's steps and do nothing
    #[arg(long, requires = "smoke")]
    list: bool,
    /// Only the tour's steps whose name contains this
    #[arg(long, requires = "smoke")]
    only: Option<String>,
    /// In the reference VM, with full cgroup v2
    #[arg(long)]
    vm: bool,
    /// At the end delete the cluster's data too
    #[arg(long)]
    rm: bool,
    /// Use the programs of this folder instead of building them
    #[arg(long, hide = true)]
    prebuilt: Option<PathBuf>,
}

/// Brings the cluster up, or takes the tour.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        smoke::list();
        return Ok(ExitCode::SUCCESS);
    }
    if options.vm {
        return in_vm(options);
    }
    if options.smoke {
        smoke::ensure_room(Path::new(smoke::DATA))?;
    }
    preflight::ensure(&preflight::NODE)?;
    let programs = match &options.prebuilt {
        Some(folder) => folder.canonicalize()?,
        None => dist::build()?,
    };
    let cache = Cache::open()?;
    let kubectl = preflight::kubectl(&cache)?;
    let registry = Registry::start(&cache, 5000)?;
    if options.smoke {
        let tour = smoke::Tour::new(programs, kubectl, registry.address())?;
        return tour.take(options.only.as_deref());
    }
    stay(options, &programs, &kubectl, &registry)
}

/// Starts `berth up` and stays until it ends; signals are passed on to it.
fn stay(
    options: &Options,
    programs: &Path,
    kubectl: &Path,
    registry: &Registry,
) -> Result<ExitCode> {
    let mut interrupts = Interrupts::take()?;
    let mut arguments = vec!["up"];
    if options.rm {
        arguments.push("--rm");
    }
    let mut node = Node::start(programs, &arguments, None)?;
    let kubectl = kubectl.display();
    println!("images: {}", registry.references().join(" "));
    println!("try:\n  export KUBECONFIG=/var/lib/berth/admin.conf");
    println!("  {kubectl} get nodes");
    println!(
        "  sed s/127.0.0.1:5000/{}/ examples/web.yaml | {kubectl} apply -f -",
        registry.address()
    );
    println!("  {kubectl} get pods -o wide");
    loop {
        match interrupts.wait(node.child())? {
            Ended::Signal(signal) => node.signal(signal)?,
            Ended::Child(code) => {
                let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
                return Ok(ExitCode::from(code));
            }
        }
    }
}

/// The same command inside the reference VM, with what is built here. What the guest
/// left on the share (logs of a failed tour) is kept.
fn in_vm(options: &Options) -> Result<ExitCode> {
    let programs = match &options.prebuilt {
        Some(folder) => folder.canonicalize()?,
        None => dist::build()?,
    };
    let share = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
    if !options.smoke {
        return stay_in_vm(&programs, share.path());
    }
    let mut arguments = vec!["up", "--smoke"];
    if let Some(only) = &options.only {
        arguments.extend(["--only", only]);
    }
    let code = vm::execute(&vm::Order {
        script: &(vm::setup(&programs)? + &vm::tour_script(&arguments)),
        share: Some(share.path()),
        timeout: VM_TOUR_LIMIT,
        api_port: None,
        system: vm::System::Plain,
    })?;
    if std::fs::read_dir(share.path())?.next().is_some() {
        eprintln!(
            "xtask: logs of the VM are kept in {}",
            share.keep().display()
        );
    }
    Ok(ExitCode::from(code))
}

/// A cluster in the VM until SIGINT, which ends the VM with all that was in it. Its API
/// server is reached through a port of this machine.
fn stay_in_vm(programs: &Path, share: &Path) -> Result<ExitCode> {
    let kubectl = preflight::kubectl(&Cache::open()?)?;
    let (kubectl, port) = (kubectl.display(), registry::free_port(16443)?);
    let hello = format!(
        "the cluster in the VM is up; try:\n  export KUBECONFIG={}/admin.conf\n  \
         {kubectl} get nodes\n  {kubectl} apply -f examples/web.yaml\n  \
         {kubectl} get pods -o wide\nSIGINT ends the VM; nothing of it stays.",
        share.display()
    );
    let code = vm::execute(&vm::Order {
        script: &(vm::setup(programs)? + &vm::cluster_script(port, &hello)),
        share: Some(share),
        timeout: VM_STAY_LIMIT,
        api_port: Some(port),
        system: vm::System::Plain,
    })?;
    Ok(ExitCode::from(code))
}
