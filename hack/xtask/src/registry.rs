//! Debian's docker-registry on loopback, with both images pushed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::signal::{Ended, Interrupts};
use crate::{apt, images, preflight, process};

const READY_WITHIN: Duration = Duration::from_secs(20);

/// Flags of `cargo xtask registry`.
#[derive(clap::Args)]
pub struct Options {
    /// First port to try on 127.0.0.1
    #[arg(long, default_value_t = 5000)]
    port: u16,
}

/// Runs the registry with both images until SIGINT.
pub fn run(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let mut interrupts = Interrupts::take()?;
    let mut registry = Registry::start(&cache, options.port)?;
    for reference in registry.references() {
        println!("{reference}");
    }
    match interrupts.wait(&mut registry.child)? {
        Ended::Signal(_) => Ok(ExitCode::SUCCESS),
        Ended::Child(code) => bail!("the registry ended by itself with exit code {code:?}"),
    }
}

/// A running registry; dropping it stops it.
pub struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// Fetches all that [`Registry::start`] needs, so that it then needs no network.
    pub fn prepare(cache: &Cache) -> Result<()> {
        images::ensure(cache)?;
        program(cache).map(|_| ())
    }

    /// Starts the registry on the first free port from `first_port` on, and pushes
    /// both images. Its storage stays in the cache.
    pub fn start(cache: &Cache, first_port: u16) -> Result<Self> {
        let folder = images::ensure(cache)?;
        let program = program(cache)?;
        let storage = cache.folder("registry")?;
        let port = free_port(first_port)?;
        let log = std::fs::File::create(storage.join("registry.log"))?;
        let configuration = storage.join("config.yml");
        std::fs::write(&configuration, "version: 0.1\nlog: {level: warn}\n")?;
        // The kernel ends the registry with this process, however this one ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .arg("serve")
            .arg(&configuration)
            .env("REGISTRY_HTTP_ADDR", format!("127.0.0.1:{port}"))
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", &storage)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry")?;
        let mut registry = Self { child, port };
        registry.await_ready()?;
        for image in images::load(&folder)? {
            images::push(&registry.address(), &image)?;
        }
        Ok(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Every image by full reference.
    pub fn references(&self) -> Vec<String> {
        images::IMAGES
            .iter()
            .flat_map(|(name, tags)| {
                tags.iter()
                    .map(move |tag| format!("{}/{name}:{tag}", self.address()))
            })
            .collect()
    }

    fn await_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let url = format!("http://{}/v2/", self.address());
        while images::agent().get(&url).call().is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("docker-registry ended at once: {status}; its log is in the cache");
            }
            if Instant::now() > deadline {
                bail!("docker-registry does not answer at {url}");
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // both fail only when the child is gone already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first free port on 127.0.0.1.
pub fn free_port(first: u16) -> Result<u16> {
    (first..first.saturating_add(100))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .with_context(|| format!("no free port on 127.0.0.1 from {first} on"))
}

/// The host's docker-registry, or the package's unpacked into the cache: installing
/// it would start it as a service.
fn program(cache: &Cache) -> Result<PathBuf> {
    if let Some(found) = process::find("docker-registry") {
        return Ok(found);
    }
    let unpacked = cache.artifact("docker-registry", "host suite", |into| {
        preflight::say(
            "docker-registry",
            "serves the images on loopback; unpacked, not installed",
        );
        let archives = tempfile::tempdir()?;
        let archive = apt::download_for_host("docker-registry", archives.path())?;
        apt::unpack(&archive, into)
    })?;
    Ok(unpacked.join("usr/bin/docker-registry"))
}
