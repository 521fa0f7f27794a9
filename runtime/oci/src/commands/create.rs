//! `create`: everything but the program.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_oci::cgroup::{Scope, mount_point};
use berth_oci::launch::{self, Created, Gate, ProcessIo};
use berth_oci::plan::{CgroupMode, CgroupPlan, Plan, RootfsSource, Source};
use berth_oci::spec::{self, OfEngine, config::Spec};
use berth_oci::state::{Lock, Record, Store};
use berth_sys::{crash_point, process};

use super::handover::{
    check_preserved, own_streams, pass_listen_fds, send_console, write_pid_file,
};
use super::rootless::{self, Delegation};
use super::{Failure, delete, home, record};
use crate::cli::{BundleArgs, CgroupManager, Global};
use crate::log::{self, Log};

/// How the caller goes on with what [`make`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It leaves; another process starts the container.
    Leave,
    /// It starts the container itself, and leaves then.
    Start,
    /// It starts the container itself, and stays with it.
    Stay,
}

/// A container that was made, with its place in the store.
pub(super) struct Made {
    pub(super) created: Created,
    pub(super) record: Record,
    pub(super) _lock: Lock,
}

pub(super) fn run(
    global: &Global,
    store: &Store,
    args: &BundleArgs,
    log: &Log,
) -> Result<ExitCode, Failure> {
    let made = make(global, store, args, log, Next::Leave)?;
    made.created.leave()?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the container and its record; after a failure nothing is left. Unless the caller stays, a
/// terminal goes to the console socket, which is then needed.
pub(super) fn make(
    global: &Global,
    store: &Store,
    args: &BundleArgs,
    log: &Log,
    next: Next,
) -> Result<Made, Failure> {
    let bundle = std::path::absolute(&args.bundle).map_err(Failure::io("resolve --bundle"))?;
    let given = spec::load_of_engine(&bundle.join("config.json"))?;
    // Never freed: this process ends soon, and to free memory after the clone is to copy its pages.
    let given = ManuallyDrop::new(given);
    let spec = &given.spec;
    log.warn_of_ignored("config.json", &given.ignored);
    let source = source(global, spec, &args.id, &bundle)?;
    let mut plan = rootless::check(Plan::from_spec(spec, &source))?;
    delegate(global, &mut plan.cgroup, log)?;
    home::add(&mut plan.process, rootfs_path(&plan.rootfs.source));
    let passed = pass_listen_fds(&mut plan.process)?;
    check_preserved(passed, args.preserve_fds)?;
    plan.process.preserve_fds = passed + args.preserve_fds;
    // what else the caller has open is not for hooks either
    process::close_on_exec_from(3 + plan.process.preserve_fds)
        .map_err(Failure::io("mark descriptors close-on-exec"))?;
    plan.process.new_keyring = !args.no_new_keyring;
    plan.rootfs.no_pivot = args.no_pivot;
    let plan = ManuallyDrop::new(plan);
    check_terminal(args, plan.process.terminal, next != Next::Stay)?;
    let mut record = new_record(spec, &plan, args)?;
    let (directory, lock) = store.reserve(&args.id)?;
    crash_point!("create: directory made");
    let kept = match global.record {
        Some(_) => record::keep(store, &plan),
        None => Ok(()),
    };
    let gate = || match next {
        Next::Leave => Gate::at(&directory.join("start.sock")),
        Next::Start | Next::Stay => Ok(Gate::Parent),
    };
    let made = kept.and_then(|()| launch_and_record(store, &given, &plan, &mut record, gate));
    let handed = made.and_then(|mut created| hand_over(&mut created, args).map(|()| created));
    let created = handed.inspect_err(|_| {
        // What failed is more worth telling than this. The process went with its handle.
        if let Err(failure) = delete::undo(store, &args.id, log) {
            log.warn(&failure.to_string());
        }
    })?;
    for limit in created.not_enforced() {
        log.warn(&format!(
            "{} is not enforced: {}",
            limit.field, limit.reason
        ));
    }
    for what in created.degraded() {
        log.warn(what);
    }
    log.debug(|| format!("container `{}` is process {}", args.id, created.pid()));
    log.debug(|| format!("time taken: {}", created.timings()));
    Ok(Made {
        created,
        record,
        _lock: lock,
    })
}

/// Moves the group to where the caller may make one, or does without.
fn delegate(global: &Global, cgroup: &mut CgroupPlan, log: &Log) -> Result<(), Failure> {
    let CgroupMode::Managed { degraded_ok } = cgroup.mode else {
        return Ok(());
    };
    match rootless::delegation(global) {
        Delegation::Whole => {}
        Delegation::Below(own) => cgroup.path = own.join(&cgroup.path),
        Delegation::Nowhere(why) if degraded_ok => {
            log.warn(&format!("no cgroup, and no limit is enforced: {why}"));
            cgroup.mode = CgroupMode::Disabled;
        }
        Delegation::Nowhere(reason) => {
            let what = "a cgroup".to_owned();
            return Err(Failure::Unsupported { what, reason });
        }
    }
    Ok(())
}

fn check_terminal(args: &BundleArgs, terminal: bool, detached: bool) -> Result<(), Failure> {
    match (&args.console_socket, terminal, detached) {
        (None, true, true) => Err(Failure::Usage(
            "a terminal needs --console-socket here".into(),
        )),
        (Some(_), false, _) => Err(Failure::Usage(
            "--console-socket without process.terminal".into(),
        )),
        _ => Ok(()),
    }
}

/// The record of a container whose process is not there yet.
fn new_record(spec: &Spec, plan: &Plan, args: &BundleArgs) -> Result<Record, Failure> {
    let cgroup = match plan.cgroup.mode {
        CgroupMode::Disabled => None,
        CgroupMode::Managed { .. } | CgroupMode::Systemd { .. } => {
            Some(mount_point()?.join(&plan.cgroup.path))
        }
    };
    let scope = plan.cgroup.scope.as_ref();
    Ok(Record {
        oci_version: spec.version.clone(),
        id: plan.id.clone(),
        bundle: plan.bundle.clone(),
        rootfs: rootfs_path(&plan.rootfs.source).to_owned(),
        pid: 0,
        start_time: 0,
        created: log::now(),
        cgroup,
        scope: scope.map(|scope| scope.unit().to_owned()),
        no_new_keyring: args.no_new_keyring,
        late_hooks: !plan.hooks.poststart.is_empty() || !plan.hooks.poststop.is_empty(),
        annotations: spec.annotations.clone(),
    })
}

fn launch_and_record(
    store: &Store,
    given: &OfEngine,
    plan: &Plan,
    record: &mut Record,
    gate: impl FnOnce() -> std::io::Result<Gate>,
) -> Result<Created, Failure> {
    store.save(record)?; // before the first effect: a crash from here on leaves a record to delete
    crash_point!("create: record saved");
    store.put(&plan.id, "config.json", &given.text())?;
    crash_point!("create: spec kept");
    let gate = gate().map_err(Failure::io("make the start socket"))?;
    crash_point!("create: gate made");
    let io = if plan.process.terminal {
        ProcessIo::Terminal { size: None }
    } else {
        own_streams()?
    };
    let created = launch::create_at(plan, io, gate)?;
    crash_point!("create: child ready");
    record.pid = created.pid();
    store.save(record)?;
    crash_point!("create: pid recorded");
    Ok(created)
}

/// Tells the caller who the process is, and gives it the terminal.
fn hand_over(created: &mut Created, args: &BundleArgs) -> Result<(), Failure> {
    if let Some(path) = &args.console_socket {
        let master = created
            .take_console()
            .ok_or_else(|| Failure::Usage("the container opened no terminal".into()))?;
        send_console(path, &master).map_err(Failure::io(format!(
            "send the terminal to `{}`",
            path.display()
        )))?;
        crash_point!("create: terminal sent");
    }
    if let Some(path) = &args.pid_file {
        write_pid_file(path, created.pid())?;
        crash_point!("create: pid file written");
    }
    Ok(())
}

fn source(global: &Global, spec: &Spec, id: &str, bundle: &Path) -> Result<Source, Failure> {
    let path = spec
        .root
        .as_ref()
        .map_or(Path::new("rootfs"), |root| &root.path);
    let cgroup = match global.manager() {
        CgroupManager::Disabled => CgroupMode::Disabled,
        CgroupManager::Systemd if !Scope::is_available() => {
            return Err(Failure::Unsupported {
                what: "systemd as cgroup manager".to_owned(),
                reason: "it is not PID 1 here, or does not listen to this user".to_owned(),
            });
        }
        CgroupManager::Systemd => CgroupMode::Systemd {
            degraded_ok: !global.strict_limits,
        },
        CgroupManager::Cgroupfs => CgroupMode::Managed {
            degraded_ok: !global.strict_limits,
        },
    };
    let rootfs = RootfsSource::Path(bundle.join(path));
    Ok(Source {
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        rootfs,
        cgroup,
    })
}

fn rootfs_path(source: &RootfsSource) -> &PathBuf {
    match source {
        RootfsSource::Path(path) => path,
        RootfsSource::Overlay { upper, .. } => upper,
    }
}
