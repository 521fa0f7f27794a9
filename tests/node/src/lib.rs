//! A kubelet of its own for one test, on a CRI server of its own, fed by files.

pub mod api;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use berth_kubelet::cri::Cri;
use berth_kubelet::pod::PodUid;
use berth_kubelet::pod::runtime::{ContainerRecord, ContainerState, LABEL_POD_NAME, PodRuntime};
use berth_kubelet::{Config, RawConfig};
use berth_test_cri::node::Node;
use berth_test_harness::Need;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How long anything may take.
fn within() -> Duration {
    berth_test_harness::patient(Duration::from_secs(20))
}

/// A CRI server and a kubelet with a directory of static pods.
pub struct Kubelet {
    /// The CRI server.
    pub node: Node,
    /// A client of it.
    pub cri: Cri,
    tasks: JoinSet<()>,
    tune: Box<dyn Fn(&mut Config)>,
}

/// Runs `body` with a kubelet of its own; skips where the machine lacks something.
pub fn test_kubelet<F>(tag: &str, subnet: u8, program: &str, body: impl FnOnce(Kubelet) -> F)
where
    F: Future<Output = Result<()>>,
{
    let needs = [Need::Root, Need::CgroupV2, Need::Program("ldd")];
    test_kubelet_where(&needs, tag, subnet, program, body);
}

/// As [`test_kubelet`], where cgroup v2 enforces limits.
pub fn test_limited_kubelet<F>(
    tag: &str,
    subnet: u8,
    program: &str,
    body: impl FnOnce(Kubelet) -> F,
) where
    F: Future<Output = Result<()>>,
{
    let needs = [Need::Root, Need::CgroupV2Controllers, Need::Program("ldd")];
    test_kubelet_where(&needs, tag, subnet, program, body);
}

fn test_kubelet_where<F>(
    needs: &[Need],
    tag: &str,
    subnet: u8,
    program: &str,
    body: impl FnOnce(Kubelet) -> F,
) where
    F: Future<Output = Result<()>>,
{
    berth_test_harness::test(needs, || {
        if Node::programs().is_none() {
            println!("skipped: berth-monitor and berth-pause are not built");
            return Ok(());
        }
        // What the kubelet says is shown with a test that fails; a second call is harmless.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
            .with_test_writer()
            .try_init();
        tokio::runtime::Runtime::new()?.block_on(async {
            let node = Node::start(tag, subnet, program).await?;
            let cri = Cri::new(&node.socket(), within());
            let mut kubelet = Kubelet {
                node,
                cri,
                tasks: JoinSet::new(),
                tune: Box::new(|_| {}),
            };
            std::fs::create_dir_all(kubelet.manifests())?;
            kubelet.start()?;
            body(kubelet).await
        })
    });
}

impl Kubelet {
    fn manifests(&self) -> PathBuf {
        self.node.dir().join("manifests")
    }

    /// Starts the kubelet anew with `tune` done to its configuration, at every start from
    /// now on.
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub async fn restart_with(&mut self, tune: impl Fn(&mut Config) + 'static) -> Result<()> {
        self.stop().await;
        self.tune = Box::new(tune);
        self.start()
    }

    /// Starts the kubelet, again after [`Kubelet::stop`].
    ///
    /// # Errors
    /// The configuration cannot be honoured.
    pub fn start(&mut self) -> Result<()> {
        let config = self.config()?;
        self.tasks.spawn(async move {
            if let Err(error) = berth_kubelet::run(config, std::future::pending()).await {
                println!("the kubelet ended: {error:?}");
            }
        });
        Ok(())
    }

    fn config(&self) -> Result<Config> {
        let dir = self.node.dir();
        let mut config = Config::resolve(RawConfig {
            node_name: Some("testnode".into()),
            cri_socket: Some(self.node.socket()),
            root_dir: Some(dir.join("kubelet")),
            pod_logs_dir: Some(self.node.logs()),
            static_pod_dir: Some(self.manifests()),
            cgroup_root: dir.file_name().map(PathBuf::from),
            allow_degraded_cgroups: true,
            port: Some(0),
            healthz_port: Some(0),
            ..RawConfig::default()
        })?;
        (self.tune)(&mut config);
        Ok(config)
    }

    /// Ends the kubelet at once, as a crash would.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Writes the static pod `name` with one container `main` that runs `script`; `extra`
    /// is merged into the spec's container, `spec` into the spec.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&self, name: &str, script: &str, extra: &Value, spec: &Value) -> Result<()> {
        let mut container = json!({
            "name": "main",
            "image": self.node.image(),
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
        });
        merge(&mut container, extra);
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "containers": [container], "terminationGracePeriodSeconds": 1 },
        });
        merge(&mut pod["spec"], spec);
        let path = self.manifests().join(format!("{name}.json"));
        Ok(std::fs::write(path, pod.to_string())?)
    }

    /// Removes the static pod's file.
    ///
    /// # Errors
    /// It was not there.
    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_file(
            self.manifests().join(format!("{name}.json")),
        )?)
    }

    /// What the runtime has of the static pod.
    ///
    /// # Errors
    /// A CRI call fails.
    pub async fn runtime(&self, name: &str) -> Result<PodRuntime> {
        let full = format!("{name}-testnode");
        let labels = HashMap::from([(LABEL_POD_NAME.to_owned(), full)]);
        let Some(sandbox) = self.cri.list_pod_sandboxes(labels).await?.pop() else {
            return Ok(PodRuntime::default());
        };
        let uid = sandbox.metadata.map(|m| m.uid).unwrap_or_default();
        Ok(PodRuntime::observe(&self.cri, &PodUid::from(uid)).await?)
    }

    /// Waits until the pod's newest `main` is as `wanted` says.
    ///
    /// # Errors
    /// It never is; what there is instead is told.
    pub async fn await_main(
        &self,
        name: &str,
        wanted: impl Fn(&ContainerRecord) -> bool,
    ) -> Result<ContainerRecord> {
        let start = Instant::now();
        loop {
            let runtime = self.runtime(name).await?;
            if let Some(main) = runtime.latest("main").filter(|main| wanted(main)) {
                return Ok(main.clone());
            }
            if start.elapsed() > within() {
                bail!("pod {name} has {runtime:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until nothing of the pod is left, its logs included.
    ///
    /// # Errors
    /// Something stays.
    pub async fn await_gone(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        let logs = || {
            let folders = std::fs::read_dir(self.node.logs()).into_iter().flatten();
            let names = folders.flatten().map(|f| f.file_name());
            let prefix = format!("default_{name}-testnode_");
            names
                .into_iter()
                .any(|n| n.to_string_lossy().starts_with(&prefix))
        };
        while logs() || self.runtime(name).await? != PodRuntime::default() {
            ensure!(start.elapsed() < within(), "pod {name} stays");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Ends everything; fails when anything is left on the host.
    ///
    /// # Errors
    /// What is left.
    pub async fn finish(mut self) -> Result<()> {
        self.stop().await;
        berth_kubelet::clean_up(&self.config()?).await?;
        self.node.finish()
    }
}

/// Waits until `condition` holds; `what` names it.
///
/// # Errors
/// It fails, or never holds.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition().await? {
        ensure!(
            start.elapsed() < within(),
            "it does not come true that {what}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// The container runs, as its `attempt`th restart.
pub fn runs(attempt: u32) -> impl Fn(&ContainerRecord) -> bool {
    move |record| record.attempt == attempt && record.state == ContainerState::Running
}

/// The container has ended, with `code`.
pub fn ended(code: i32) -> impl Fn(&ContainerRecord) -> bool {
    move |record| record.state == ContainerState::Exited && record.exit_code == code
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
