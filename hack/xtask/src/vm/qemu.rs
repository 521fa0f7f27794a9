//! One run of the VM: its disks, ports and command line.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::artifacts::Artifacts;
use super::cpio::Archive;
use super::system::System;
use crate::process;
use crate::signal::Interrupts;

const KERNEL_ARGUMENTS: &str = "console=hvc0 quiet loglevel=3 panic=-1 nokaslr mitigations=off \
    audit=0 selinux=0 apparmor=1 security=apparmor psi=1 init_on_alloc=0 \
    randomize_kstack_offset=off cgroup_no_v1=all rcupdate.rcu_expedited=1 random.trust_cpu=on \
    no_timer_check 8250.nr_uarts=0 i8042.noaux i8042.nokbd";

/// How the guest's processor is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// What the guest runs and sees.
pub struct Guest<'a> {
    /// A bash script.
    pub script: &'a str,
    /// Folders of this machine, read-only at the same path; the first is the working folder.
    pub folders: &'a [PathBuf],
    /// A folder the guest may write, at /mnt/rw.
    pub share: Option<&'a Path>,
    /// Port on this machine's 127.0.0.1 that leads to the guest's API server.
    pub api_port: Option<u16>,
    /// Which system it is.
    pub system: System,
    /// How the processor is had.
    pub accelerator: Accelerator,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The script's exit code.
    Exit(u8),
    /// SIGINT or SIGTERM came.
    Interrupted,
    /// The deadline passed.
    TimedOut,
    /// The guest never reported an exit code.
    Failed,
}

/// A folder with the run's console log and disk, and QEMU's process.
pub struct Run {
    folder: tempfile::TempDir,
    child: Child,
    outputs: Vec<JoinHandle<io::Result<u64>>>,
    quiet: bool,
}

impl Run {
    /// Starts QEMU. The guest's standard output and error go to this process's own.
    pub fn start(artifacts: &Artifacts, guest: &Guest<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("berth-vm-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let mut initrd = fs::read(&artifacts.initrd)?;
        initrd.extend(run_archive(guest));
        fs::write(at("initrd"), initrd)?;
        process::run(
            Command::new("cp")
                .arg("--sparse=always")
                .args([&artifacts.data, &at("data")]),
        )?;
        process::run(Command::new("mkfifo").args([at("out"), at("err")]))?;
        let mut command = artifacts.qemu();
        add_machine(&mut command, guest);
        add_ports(&mut command, folder.path());
        add_devices(&mut command, artifacts, guest, folder.path());
        let log = File::create(at("qemu.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("cannot start QEMU")?;
        let (out, err) = (at("out"), at("err"));
        let outputs = vec![
            thread::spawn(move || io::copy(&mut File::open(out)?, &mut io::stdout())),
            thread::spawn(move || io::copy(&mut File::open(err)?, &mut io::stderr())),
        ];
        Ok(Self {
            folder,
            child,
            outputs,
            quiet: false,
        })
    }

    /// Says nothing when the run fails: it is a probe.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Waits for the end of the guest, at most until the deadline or a signal.
    pub fn wait(mut self, timeout: Duration, interrupts: &mut Interrupts) -> Result<Outcome> {
        let deadline = Instant::now() + timeout;
        while self.child.try_wait()?.is_none() {
            if interrupts.pending().is_some() {
                self.stop()?;
                return Ok(Outcome::Interrupted);
            }
            if Instant::now() > deadline {
                self.stop()?;
                return Ok(self.keep(Outcome::TimedOut));
            }
            thread::sleep(Duration::from_millis(20));
        }
        let code = fs::read_to_string(self.folder.path().join("rc")).unwrap_or_default();
        let Ok(code) = code.trim().parse() else {
            return Ok(self.keep(Outcome::Failed));
        };
        for output in self.outputs.drain(..) {
            // a failed copy means our own output is closed: nothing to tell it to
            let _ = output.join();
        }
        Ok(Outcome::Exit(code))
    }

    /// SIGTERM, and after three seconds SIGKILL, to QEMU alone.
    fn stop(&mut self) -> Result<()> {
        process::run(Command::new("kill").arg(self.child.id().to_string()))?;
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Keeps the run's folder for inspection and prints how the console ended.
    fn keep(self, outcome: Outcome) -> Outcome {
        if self.quiet {
            return outcome;
        }
        let folder = self.folder.keep();
        eprintln!(
            "xtask: the VM's console, disk and log are kept in {}",
            folder.display()
        );
        for name in ["qemu.log", "console.log"] {
            let text = fs::read(folder.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(20)..] {
                eprintln!("  {line}");
            }
        }
        outcome
    }
}

/// Init is part of the run, so that a change of it does not make the root anew.
fn run_archive(guest: &Guest<'_>) -> Vec<u8> {
    let folders: Vec<String> = guest
        .folders
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    let workspace = folders.first().map_or("/", String::as_str);
    let share = if guest.share.is_some() { "1" } else { "" };
    let binds = folders.join(" ");
    let systemd = if guest.system.has_systemd() { "1" } else { "" };
    let environment =
        format!("BINDS=\"{binds}\"\nWORKSPACE=\"{workspace}\"\nSHARE={share}\nSYSTEMD={systemd}\n");
    let mut archive = Archive::new();
    archive.file("init", include_bytes!("init.sh"));
    archive.file("stage2", include_bytes!("stage2.sh"));
    archive.file("session", include_bytes!("session.sh"));
    archive.file("berth-run.service", include_bytes!("berth-run.service"));
    archive.file("run.env", environment.as_bytes());
    archive.file("cmd", guest.script.as_bytes());
    archive.finish()
}

fn add_machine(command: &mut Command, guest: &Guest<'_>) {
    match guest.accelerator {
        Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
        Accelerator::Tcg => command
            .args(["-accel", "tcg,thread=multi,tb-size=512"])
            .args(["-cpu", "max,-smap,-smep"]),
    };
    command
        .args([
            "-machine",
            "q35,vmport=off,hpet=off,sata=off",
            "-smp",
            "2",
            "-m",
            "8G",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ]);
}

/// Console, output, error and exit code, each its own virtio port.
fn add_ports(command: &mut Command, folder: &Path) {
    let at = |name: &str| folder.join(name).display().to_string();
    command.args(["-device", "virtio-serial-pci,id=vs"]);
    command.args([
        "-chardev",
        &format!("file,id=con,path={}", at("console.log")),
    ]);
    command.args(["-device", "virtconsole,chardev=con,nr=0"]);
    for (number, name) in ["out", "err", "rc"].into_iter().enumerate() {
        command.args(["-chardev", &format!("file,id={name},path={}", at(name))]);
        let port = format!(
            "virtserialport,chardev={name},name={name},nr={}",
            number + 1
        );
        command.args(["-device", &port]);
    }
}

fn add_devices(command: &mut Command, artifacts: &Artifacts, guest: &Guest<'_>, folder: &Path) {
    command.arg("-kernel").arg(&artifacts.kernel);
    command
        .arg("-initrd")
        .arg(folder.join("initrd"))
        .args(["-append", KERNEL_ARGUMENTS]);
    let disk = |file: &Path, id: &str, options: &str| {
        format!(
            "file={},if=none,id={id},format=raw,cache=unsafe,{options}",
            file.display()
        )
    };
    command.args(["-device", "virtio-rng-pci"]);
    command.args(["-drive", &disk(&artifacts.root, "r0", "readonly=on")]);
    command.args(["-device", "virtio-blk-pci,drive=r0,serial=root"]);
    command.args(["-drive", &disk(&folder.join("data"), "d0", "discard=unmap")]);
    command.args(["-device", "virtio-blk-pci,drive=d0,serial=data"]);
    let host = "local,path=/,mount_tag=host,security_model=passthrough,readonly=on,multidevs=remap";
    command.args(["-virtfs", host]);
    if let Some(share) = guest.share {
        let share = share.display();
        let share = format!("local,path={share},mount_tag=rw,security_model=none,multidevs=remap");
        command.args(["-virtfs", &share]);
    }
    // restrict: nothing of the outside is reachable from the guest
    let mut network = "user,id=n0,restrict=on".to_owned();
    if let Some(port) = guest.api_port {
        network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:6443"));
    }
    command.args(["-netdev", &network]);
    command.args(["-device", "virtio-net-pci,netdev=n0,romfile="]);
}
