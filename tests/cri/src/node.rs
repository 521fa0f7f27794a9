//! A CRI server of its own for one test: own directories, network, cgroups and image.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use berth_proto::cri;
use berth_sys::crash::VARIABLE;
use berth_test_harness::Need;
use serde_json::json;

use crate::client::{self, Client};
use crate::registry::{self, Registry};
use crate::rootfs;

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to its end.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// How long effects may take to vanish: links go when the kernel has freed their namespace.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);

/// A server and everything it needs; [`Node::finish`] takes it down and looks for leaks.
pub struct Node {
    dir: PathBuf,
    name: String,
    server: Option<Child>,
    registry: Registry,
    program: PathBuf,
}

impl Node {
    /// Where the programs of a node are: `BERTH_DIST`, else `dist` of the target folder that
    /// the test lies in, or next to the test.
    pub fn programs() -> Option<PathBuf> {
        let own = std::env::current_exe().ok()?;
        let above = || own.ancestors().skip(1).map(Path::to_owned);
        let named = std::env::var_os("BERTH_DIST")
            .map(PathBuf::from)
            .into_iter();
        let beside = above().map(|folder| folder.join("dist")).chain(above());
        named.chain(beside).find(|folder| {
            folder.join("berth-monitor").exists() && folder.join("berth-pause").exists()
        })
    }

    /// Starts a node whose names contain `tag` (at most four characters), with the test
    /// server `program` and the third byte `subnet` of its pod network 10.213.x.0/24.
    ///
    /// # Errors
    /// A part does not start.
    pub async fn start(tag: &str, subnet: u8, program: &str) -> Result<Node> {
        let programs = Node::programs().context("berth-monitor and berth-pause are not built")?;
        let name = format!("bt{tag}{}", std::process::id() % 10_000);
        let dir = PathBuf::from("/run").join(&name);
        std::fs::create_dir_all(dir.join("net.d"))?;
        let config = json!({
            "architecture": registry::architecture(),
            "os": "linux",
            "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "FROM=image"], "User": "" },
        });
        let registry = Registry::serve(&rootfs::shell_tar()?, config).await?;
        let program = PathBuf::from(program);
        let mut node = Node {
            dir,
            name,
            server: None,
            registry,
            program,
        };
        node.write_config(&programs, subnet)?;
        node.start_server().await?;
        Ok(node)
    }

    fn write_config(&self, programs: &Path, subnet: u8) -> Result<()> {
        let dir = self.dir.display();
        let network = json!({
            "cniVersion": "1.0.0", "name": self.name,
            "plugins": [{
                "type": "bridge", "bridge": self.name, "isGateway": true, "ipMasq": true,
                "ipam": {
                    "type": "host-local", "dataDir": format!("{dir}/leases"),
                    "ranges": [[{ "subnet": format!("10.213.{subnet}.0/24") }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }],
        });
        std::fs::write(self.dir.join("net.d/10-test.conflist"), network.to_string())?;
        let programs = programs.display();
        let config = format!(
            "state_dir = '{dir}/state'\ndata_dir = '{dir}/data'\ncgroup_root = '/{name}'\n\
             monitor_path = '{programs}/berth-monitor'\npause_path = '{programs}/berth-pause'\n\
             allow_degraded_cgroups = true\n\
             [images]\nroot = '{dir}/images'\nhosts_dir = '{dir}/certs.d'\n\
             [cni]\nconf_dir = '{dir}/net.d'\n[audit]\ndir = '{dir}/audit'\n",
            name = self.name,
        );
        Ok(std::fs::write(self.dir.join("config.toml"), config)?)
    }

    /// Starts the server, again after [`Node::kill_server`].
    ///
    /// # Errors
    /// It does not answer; what it said is printed.
    pub async fn start_server(&mut self) -> Result<Client> {
        self.start_server_dying_at("").await
    }

    /// Starts the server, which dies by SIGKILL where it reaches the crash point `point`.
    ///
    /// # Errors
    /// It does not answer; what it said is printed.
    pub async fn start_server_dying_at(&mut self, point: &str) -> Result<Client> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("server.log"))?;
        let child = Command::new(&self.program)
            .arg("serve")
            .arg(self.dir.join("config.toml"))
            .env(VARIABLE, point)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.server = Some(child);
        match Client::await_ready(&self.socket(), READY_WITHIN).await {
            Ok(client) => Ok(client),
            Err(error) => bail!("{error}\n{}", self.log()),
        }
    }

    /// Kills the server with SIGKILL, as a crash would.
    ///
    /// # Errors
    /// There is none.
    pub fn kill_server(&mut self) -> Result<()> {
        let mut server = self.server.take().context("no server runs")?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }

    /// Asks the server to end with SIGTERM and waits until it has.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub async fn end_server(&mut self) -> Result<()> {
        let server = self.server.as_ref().context("no server runs")?;
        let pid = rustix::process::Pid::from_child(server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.server_ended().await?;
        if !status.success() {
            bail!("the server ended with {status}\n{}", self.log());
        }
        Ok(())
    }

    async fn server_ended(&mut self) -> Result<ExitStatus> {
        let start = std::time::Instant::now();
        loop {
            let server = self.server.as_mut().context("no server runs")?;
            if let Some(status) = server.try_wait()? {
                self.server = None;
                return Ok(status);
            }
            if start.elapsed() > ENDS_WITHIN {
                bail!("the server does not end\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the server has died at its crash point, and starts it again without.
    ///
    /// # Errors
    /// It lives, ended otherwise, or does not answer afterwards.
    pub async fn revive_server(&mut self) -> Result<Client> {
        let status = self.server_ended().await?;
        if status.signal() != Some(rustix::process::Signal::KILL.as_raw()) {
            bail!("the server ended with {status}\n{}", self.log());
        }
        self.start_server().await
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("state/cri.sock")
    }

    /// A client of the server.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn client(&self) -> Result<Client> {
        Client::await_ready(&self.socket(), READY_WITHIN).await
    }

    /// The image every node has in its registry.
    pub fn image(&self) -> String {
        self.registry.image()
    }

    /// Where logs of pods go.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The directory of everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    /// Ends the server, removes every pod, and fails when anything is left.
    ///
    /// # Errors
    /// What is left.
    pub fn finish(mut self) -> Result<()> {
        self.kill_server()?;
        let config = self.dir.join("config.toml");
        let start = std::time::Instant::now();
        let stopped = Command::new(&self.program)
            .arg("stop")
            .arg(config)
            .output()?;
        println!("everything stopped in {} ms", start.elapsed().as_millis());
        let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
        if !stopped.status.success() {
            bail!("cannot stop everything: {said}");
        }
        self.expect_effects(&BTreeSet::new()).context(said)
    }

    /// Fails unless the effects on the host soon are `expected`.
    ///
    /// # Errors
    /// What is there and should not be, or the other way round.
    pub fn expect_effects(&self, expected: &BTreeSet<String>) -> Result<()> {
        let start = std::time::Instant::now();
        loop {
            let found = self.effects();
            if found == *expected {
                return Ok(());
            }
            if start.elapsed() > SETTLED_WITHIN {
                let left: Vec<_> = found.difference(expected).collect();
                let lost: Vec<_> = expected.difference(&found).collect();
                bail!("left behind: {left:?}, lost: {lost:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The cgroups of our pods.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let pods = mounts.iter().map(|mount| list(&mount.join(&self.name)));
        pods.flatten().filter(|path| path.is_dir()).collect()
    }

    /// Processes, mounts, cgroups, bridge ports, leases, writable layers and records that bear
    /// our name.
    pub fn effects(&self) -> BTreeSet<String> {
        let mut left = Vec::new();
        let dir = self.dir.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&dir))
                .map(str::to_owned),
        );
        for process in list(Path::new("/proc")) {
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&format!("{dir}/state")) {
                left.push(process.display().to_string());
            }
        }
        let cgroups = self.cgroups();
        left.extend(cgroups.iter().map(|path| path.display().to_string()));
        let ports = PathBuf::from(format!("/sys/class/net/{}/brif", self.name));
        let leases = self.dir.join("leases").join(&self.name);
        for folder in [
            ports,
            self.dir.join("state/pods"),
            self.dir.join("state/containers"),
            self.dir.join("data/sandboxes"),
            self.dir.join("data/containers"),
            self.dir.join("images/snapshots"),
        ] {
            left.extend(list(&folder).iter().map(|path| path.display().to_string()));
        }
        let address = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.parse::<std::net::IpAddr>().is_ok()
        };
        left.extend(
            list(&leases)
                .iter()
                .filter(|path| address(path))
                .map(|path| path.display().to_string()),
        );
        left.into_iter().collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
            // A test that failed must not leave its pods.
            let _ = Command::new(&self.program)
                .arg("stop")
                .arg(self.dir.join("config.toml"))
                .output();
        }
        let masquerade = format!("cni_masq_{}", self.name);
        let _ = Command::new("nft")
            .args(["delete", "table", "inet", &masquerade])
            .output();
        let _ = Command::new("ip")
            .args(["link", "delete", &self.name])
            .output();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn list(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Runs `body` with a node of its own and one sandbox in it; skips where the machine
/// lacks something.
pub fn test_pod<F>(tag: &str, subnet: u8, program: &str, body: impl FnOnce(Pod) -> F)
where
    F: Future<Output = Result<()>>,
{
    let needs = [Need::Root, Need::CgroupV2, Need::Program("ldd")];
    test_pod_where(&needs, tag, subnet, program, body);
}

/// As [`test_pod`], where cgroup v2 enforces limits.
pub fn test_limited_pod<F>(tag: &str, subnet: u8, program: &str, body: impl FnOnce(Pod) -> F)
where
    F: Future<Output = Result<()>>,
{
    let needs = [Need::Root, Need::CgroupV2Controllers, Need::Program("ldd")];
    test_pod_where(&needs, tag, subnet, program, body);
}

fn test_pod_where<F>(
    needs: &[Need],
    tag: &str,
    subnet: u8,
    program: &str,
    body: impl FnOnce(Pod) -> F,
) where
    F: Future<Output = Result<()>>,
{
    berth_test_harness::test(needs, || {
        if Node::programs().is_none() {
            println!("skipped: berth-monitor and berth-pause are not built");
            return Ok(());
        }
        tokio::runtime::Runtime::new()?.block_on(async {
            let node = Node::start(tag, subnet, program).await?;
            body(Pod::run(node, "pod").await?).await
        })
    });
}

/// A node with one sandbox.
pub struct Pod {
    /// The node.
    pub node: Node,
    /// A client of it.
    pub client: Client,
    /// The reference of the pulled image.
    pub image: String,
    /// What the sandbox was asked for with.
    pub config: cri::PodSandboxConfig,
    /// The sandbox.
    pub id: String,
}

impl Pod {
    async fn run(node: Node, name: &str) -> Result<Pod> {
        let mut client = node.client().await?;
        let image = client.pull(&node.image()).await?;
        let config = client::pod(name, &node.logs());
        let id = client.run_pod(&config).await?;
        Ok(Pod {
            node,
            client,
            image,
            config,
            id,
        })
    }

    /// A container `name` that runs the shell script.
    pub fn script(&self, name: &str, script: &str) -> cri::ContainerConfig {
        client::container(name, &self.image, &["sh", "-c", script])
    }

    /// Creates and starts a container.
    ///
    /// # Errors
    /// The server's status.
    pub async fn start(&mut self, config: &cri::ContainerConfig) -> Result<String> {
        self.client.run(&self.id, config, &self.config).await
    }

    /// Creates and starts a container that sleeps.
    ///
    /// # Errors
    /// The server's status.
    pub async fn start_sleeping(&mut self) -> Result<String> {
        self.start(&client::container("sleep", &self.image, &["sleep", "1000"]))
            .await
    }

    /// What the container `name` has logged.
    pub fn log(&self, name: &str) -> String {
        let folder = PathBuf::from(&self.config.log_directory);
        std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Removes the sandbox and the node; fails when anything is left.
    ///
    /// # Errors
    /// What is left.
    pub async fn finish(mut self) -> Result<()> {
        self.client.remove_pod(&self.id).await?;
        self.node.finish()
    }
}
