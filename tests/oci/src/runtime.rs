//! The runtime under test, called as an engine calls it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::{Bundle, Report};

/// The runtime's program: `BERTH_TEST_RUNTIME`, or `berth-oci` built from this workspace.
pub fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| match std::env::var_os("BERTH_TEST_RUNTIME") {
        Some(path) => path.into(),
        None => {
            built().unwrap_or_else(|error| panic!("berth-oci must build for its tests: {error:#}"))
        }
    })
}

fn built() -> anyhow::Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "berth-oci"])
        .status()?;
    anyhow::ensure!(status.success(), "cargo build failed");
    let me = std::env::current_exe()?;
    let folder = me
        .parent()
        .and_then(Path::parent)
        .context("a test lies in target/<profile>/deps")?;
    Ok(folder.join("berth-oci"))
}

/// A copy in `folder` of the runtime with the faults of `berth_oci::fault` and the points of
/// `berth_oci::crash`: of `BERTH_TEST_FAULTY_RUNTIME`, or of one that is built for it.
pub fn faulty(folder: &Path) -> anyhow::Result<PathBuf> {
    let copy = folder.join("berth-oci");
    if let Some(prebuilt) = std::env::var_os("BERTH_TEST_FAULTY_RUNTIME") {
        std::fs::copy(prebuilt, &copy)?;
        return Ok(copy);
    }
    // known before the build, which takes the same place
    let ordinary = runtime();
    let args = [
        "build",
        "--quiet",
        "--package",
        "berth-oci",
        "--features",
        "test-util",
    ];
    let status = Command::new(env!("CARGO")).args(args).status()?;
    anyhow::ensure!(status.success(), "cargo build failed");
    std::fs::copy(ordinary, &copy)?;
    Ok(copy)
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + n after signal n.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The probe's report.
    pub fn report(&self) -> anyhow::Result<Report> {
        serde_json::from_str(&self.stdout).with_context(|| format!("no report: {self:?}"))
    }

    /// The output of a call that must have succeeded.
    pub fn expect_ok(self) -> anyhow::Result<Output> {
        if self.code == 0 {
            Ok(self)
        } else {
            bail!("failed: {self:?}")
        }
    }

    /// The error text of a call that must have failed.
    pub fn expect_failure(self) -> anyhow::Result<String> {
        if self.code == 0 {
            bail!("succeeded: {self:?}")
        } else {
            Ok(self.stderr)
        }
    }
}

/// One container of a bundle; whatever a test leaves of it goes at the end.
#[derive(Debug)]
pub struct Container<'a> {
    bundle: &'a Bundle,
    /// Its id.
    pub id: String,
}

impl<'a> Container<'a> {
    /// Names a container that is not made yet.
    pub fn new(bundle: &'a Bundle) -> Container<'a> {
        let unique = bundle
            .folder()
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .replace('.', "");
        Container { bundle, id: unique }
    }

    /// Calls a verb with further arguments; `ID` stands for the id.
    pub fn call(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.call_with(args, |_| {})
    }

    /// As [`Container::call`], with a change to the command.
    pub fn call_with(
        &self,
        args: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Output> {
        let mut command = Command::new(runtime());
        command.arg("--root").arg(self.bundle.state());
        command.args(
            args.iter()
                .map(|arg| if *arg == "ID" { self.id.as_str() } else { arg }),
        );
        command
            .current_dir(self.bundle.folder())
            .stdin(Stdio::null());
        change(&mut command);
        let output = command.output().context("cannot run the runtime")?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        Ok(Output {
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + signal.unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `create` with streams to nowhere: a waiting container would hold a pipe open.
    pub fn create(&self) -> anyhow::Result<Output> {
        let log = self.bundle.folder().join("create.log");
        let file = std::fs::File::create(&log)?;
        let mut output = self.call_with(&["create", "ID"], |command| {
            command.stdout(Stdio::null()).stderr(file);
        })?;
        output.stderr = std::fs::read_to_string(log)?;
        Ok(output)
    }

    /// The status in the answer of `state`.
    pub fn status(&self) -> anyhow::Result<String> {
        let output = self.call(&["state", "ID"])?.expect_ok()?;
        let state: serde_json::Value = serde_json::from_str(&output.stdout)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits up to ten seconds for a status.
    pub fn until(&self, status: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.status()? != status {
            anyhow::ensure!(
                Instant::now() < deadline,
                "still {} instead of {status}",
                self.status()?
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "--force", "ID"]);
    }
}
