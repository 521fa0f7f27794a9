//! A server of its own for each test, and the real kubectl against it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Output, Stdio},
};

use berth_apiserver::{Config, Server};
use tokio::sync::oneshot;

/// A running server; dropping it stops it.
pub struct Cluster {
    pub dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub pki: std::sync::Arc<berth_apiserver::pki::Pki>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What kubectl printed.
pub struct Printed {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Cluster {
    /// Starts a server on a free port of 127.0.0.1 with data of its own.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Starts a server on the data of an earlier one.
    pub fn start_in(dir: tempfile::TempDir) -> Self {
        let mut config = Config::new(dir.path().to_owned(), IpAddr::from(Ipv4Addr::LOCALHOST));
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        config.node_names = vec!["n1".to_owned()];
        let (stop, stopped) = oneshot::channel();
        let (started, server) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let server = Server::bind(config).await.unwrap();
                started.send((server.local_addr(), server.pki())).unwrap();
                let shutdown = async {
                    let _ = stopped.await;
                };
                server.serve(shutdown).await;
            });
        });
        let (address, pki) = server.recv().unwrap();
        Self {
            dir,
            address,
            pki,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Stops the server; its data stays.
    pub fn stop(mut self) -> tempfile::TempDir {
        self.end();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// A kubectl command as `identity` (a file of the kubeconfig directory, without `.conf`).
    pub fn kubectl_as(&self, identity: &str, arguments: &[&str]) -> Command {
        let config = self.dir.path().join(format!("kubeconfig/{identity}.conf"));
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", config)
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs kubectl as admin.
    pub fn kubectl(&self, arguments: &[&str]) -> Printed {
        printed(self.kubectl_as("admin", arguments).output().unwrap())
    }

    /// Runs kubectl as admin; it must succeed. What it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let printed = self.kubectl(arguments);
        assert_eq!(
            printed.code, 0,
            "{arguments:?}: {}{}",
            printed.out, printed.err
        );
        printed.out
    }

    /// Runs kubectl as admin with a manifest on its standard input.
    pub fn with_input(&self, arguments: &[&str], manifest: &str) -> Printed {
        use std::io::Write;
        let mut command = self.kubectl_as("admin", arguments);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(manifest.as_bytes()).unwrap();
        drop(stdin);
        printed(child.wait_with_output().unwrap())
    }

    /// Applies a manifest, which must succeed.
    pub fn apply(&self, manifest: &str) -> String {
        let printed = self.with_input(&["apply", "-f", "-"], manifest);
        assert_eq!(printed.code, 0, "{}{}", printed.out, printed.err);
        printed.out
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// The output as text; kubectl's note about versions apart is left out.
pub fn printed(output: Output) -> Printed {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Printed {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Whether kubectl is there; says so when not.
pub fn has_kubectl() -> bool {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .status();
    if found.is_ok() {
        return true;
    }
    assert!(
        std::env::var_os("BERTH_REQUIRE_ALL").is_none(),
        "kubectl is required"
    );
    println!("skipped: no kubectl");
    false
}
