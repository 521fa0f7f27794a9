//! `cargo xtask oci-validation`: the OCI runtime-tools validation programs against berth-oci
//! and its peers.

mod execute;
mod gaps;
mod programs;
mod report;
mod short;
mod tap;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bench::hierarchy;
use crate::cache::Cache;
use crate::vm::{self, Order, System};
use crate::{dist, peers};
use execute::{Runtime, Session};
use gaps::Gaps;
use report::Report;
pub use short::Short;

/// What ours is called in the table.
pub const OURS: &str = "berth";
/// The VM is stopped after this: four times what three runtimes take.
const LIMIT: Duration = Duration::from_mins(30);
const RESULTS: &str = "results.json";

/// Flags of `cargo xtask oci-validation`.
#[derive(clap::Args)]
pub struct Options {
    /// Only this runtime: berth, crun or runc
    #[arg(long)]
    runtime: Option<String>,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Only programs whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// On this machine instead of in the reference VM
    #[arg(long)]
    native: bool,
    /// Use this berth-oci instead of building it
    #[arg(long, hide = true)]
    prebuilt: Option<PathBuf>,
    /// Run the programs of this folder and leave the results in `--results`
    #[arg(long, hide = true, requires = "results")]
    programs: Option<PathBuf>,
    /// Where results go
    #[arg(long, hide = true)]
    results: Option<PathBuf>,
    /// `NAME=PATH` of a runtime, for `--programs`
    #[arg(long, hide = true)]
    against: Vec<Runtime>,
}

/// Runs the programs and prints the table; fails when berth fails a test that the list of
/// gaps does not explain, or passes one that it lists.
pub fn run(options: &Options) -> Result<ExitCode> {
    if let (Some(programs), Some(results)) = (&options.programs, &options.results) {
        inside(options, programs, results)?;
        return Ok(ExitCode::SUCCESS);
    }
    let cache = Cache::open()?;
    let programs = programs::ensure(&cache)?;
    let runtimes = runtimes(options, &cache)?;
    let share = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
    let results = share.path().join(RESULTS);
    let only = &options.only;
    if options.native {
        hierarchy::unify()?;
        let session = Session::new(&programs, only)?;
        execute::save(&session.run_all(&runtimes)?, &results)?;
    } else {
        in_vm(&programs, &runtimes, only, share.path())?;
    }
    let names: Vec<&str> = runtimes.iter().map(|r| r.name.as_str()).collect();
    let report = Report::new(&names, &execute::load(&results)?, &Gaps::read()?);
    match options.json {
        true => report.print_json()?,
        false => report.print_table()?,
    }
    Ok(match report.is_explained() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The part of the run that takes place next to the runtimes.
fn inside(options: &Options, programs: &Path, results: &Path) -> Result<()> {
    let session = Session::new(programs, &options.only)?;
    execute::save(&session.run_all(&options.against)?, results)
}

fn runtimes(options: &Options, cache: &Cache) -> Result<Vec<Runtime>> {
    let wanted = |name: &str| options.runtime.as_deref().is_none_or(|only| only == name);
    let mut found = Vec::new();
    if wanted(OURS) {
        let path = match &options.prebuilt {
            Some(program) => program.canonicalize()?,
            None => dist::build()?.join("berth-oci"),
        };
        found.push(Runtime::new(OURS, path));
    }
    for (name, have) in [
        ("runc", peers::runc as fn(&Cache) -> _),
        ("crun", peers::crun),
    ] {
        if wanted(name) {
            found.push(Runtime::new(name, have(cache)?.program(name)));
        }
    }
    if found.is_empty() {
        bail!("no such runtime; there are {OURS}, crun and runc");
    }
    Ok(found)
}

/// Runs this program again in the VM, with its own copy of berth-oci.
fn in_vm(programs: &Path, runtimes: &[Runtime], only: &[String], share: &Path) -> Result<()> {
    let mut words = vec![
        "/data/xtask".to_owned(),
        "oci-validation".into(),
        "--programs".into(),
        programs.display().to_string(),
        "--results".into(),
        format!("/mnt/rw/{RESULTS}"),
    ];
    let mut copies = String::new();
    for runtime in runtimes {
        let mut there = runtime.clone();
        if there.name == OURS {
            copies = format!("cp {} /data/berth-oci && ", vm::in_guest(&there.path));
            there.path = "/data/berth-oci".into();
        }
        words.extend(["--against".into(), there.to_string()]);
    }
    for only in only {
        words.extend(["--only".into(), only.clone()]);
    }
    let words: Vec<String> = words.iter().map(|word| vm::quote(word)).collect();
    let program = std::env::current_exe().context("cannot find this program")?;
    let script = format!(
        "{copies}cp {} /data/xtask && mkdir /data/tmp && TMPDIR=/data/tmp exec {}\n",
        vm::in_guest(&program),
        words.join(" ")
    );
    let code = vm::execute(&Order {
        script: &script,
        share: Some(share),
        timeout: LIMIT,
        api_port: None,
        system: System::Plain,
    })?;
    anyhow::ensure!(code == 0, "the run in the VM ended with {code}");
    Ok(())
}
