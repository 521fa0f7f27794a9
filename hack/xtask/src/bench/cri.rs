//! One pod with one container under berth's CRI server and under containerd's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinSet;

use super::containerd::{Peers, Traces};
use super::pod::{self, CALLS, Life};
use super::sample::Comparison;
use super::server::{Client, Server};
use super::{Terms, berth, hierarchy, host, memory};
use crate::cache::Cache;
use crate::registry::Registry;
use crate::signal::Interrupts;
use crate::up::limits_are_enforced;
use crate::{images, preflight};

/// Pods at a time in the parallel cases.
const PARALLEL: usize = 10;
/// Lives after one another of each of them in one round.
const LIVES: usize = 2;
/// Pods over which memory is shared out.
const MEASURED_PODS: usize = 20;

/// Both servers, and what is said with every result.
struct Bench {
    berth: Server,
    peer: Server,
    image: String,
    note: String,
    next: usize,
}

/// Measures every case and tells each result as soon as it is known.
pub fn run(
    programs: &Path,
    terms: &Terms,
    mut tell: impl FnMut(&Comparison) -> Result<()>,
) -> Result<()> {
    preflight::ensure(&preflight::NODE)?;
    let cache = Cache::open()?;
    let peers = Peers::have(&cache)?;
    Registry::prepare(&cache)?;
    let mut interrupts = Interrupts::take()?;
    // from here on nothing outside is reached, and nothing outside is touched
    host::private_network()?;
    host::private_mounts()?;
    let note = if limits_are_enforced() {
        format!("cgroups: {}", hierarchy::unify()?)
    } else {
        // there containerd would set the weight of every container, and fail
        "cgroups: as the host has them, its cgroup2 lacks controllers: \
         berth in cgroup2 without limits, containerd in every v1 hierarchy"
            .into()
    };
    let _traces = Traces::note();
    let registry = Registry::start(&cache, 5000)?;
    let folder = tempfile::Builder::new()
        .prefix("berth-bench-")
        .tempdir_in("/var/tmp")?;
    // as /run is on a host with an init: in memory
    let state = tempfile::Builder::new()
        .prefix("bb-")
        .tempdir_in("/dev/shm")?;
    let pause = images::pause(&programs.join("berth-pause"), &folder.path().join("pause"))?;
    images::push(&registry.address(), &pause)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let at = |name: &str| side(folder.path(), name);
    runtime.block_on(async {
        let (theirs, networks) = at("containerd")?;
        let image = format!("{}/pause:latest", registry.address());
        let peer = Server::start(peers.setup(state.path(), &theirs, &networks, &image)?).await?;
        let (ours, networks) = at("berth")?;
        let berth = match berth::setup(programs, state.path(), &ours, &networks) {
            Ok(setup) => Server::start(setup).await,
            Err(error) => Err(error),
        };
        let berth = match berth {
            Ok(berth) => berth,
            Err(error) => {
                peer.end().await?;
                return Err(error);
            }
        };
        let mut bench = Bench {
            berth,
            peer,
            image: format!("{}/busybox:latest", registry.address()),
            note,
            next: 0,
        };
        let measured = bench.measure(terms, &mut interrupts, &mut tell).await;
        let ended = bench.berth.end().await.and(bench.peer.end().await);
        measured.and(ended).and(hierarchy::remove(pod::CGROUP))
    })
}

/// The folder of one side, and in it the folder of its networks with one network.
pub fn side(folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let folder = folder.join(name);
    let networks = folder.join("net.d");
    fs::create_dir_all(&networks)?;
    // same plugins, same options; only names and addresses differ
    let (link, subnet) = match name {
        "berth" | "logged" => ("bench0", "10.231.0.0/16"),
        _ => ("bench1", "10.232.0.0/16"),
    };
    let network = json!({
        "cniVersion": "1.0.0",
        "name": format!("bench-{name}"),
        "plugins": [
            {
                "type": "bridge", "bridge": link, "isGateway": true, "ipMasq": true,
                "ipMasqBackend": "nftables", "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": folder.join("leases"),
                    "ranges": [[{"subnet": subnet}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {
                "type": "portmap", "backend": "nftables",
                "capabilities": {"portMappings": true},
            },
        ],
    });
    fs::write(
        networks.join("10-bench.conflist"),
        serde_json::to_vec_pretty(&network)?,
    )?;
    Ok((folder, networks))
}

impl Bench {
    async fn measure(
        &mut self,
        terms: &Terms,
        interrupts: &mut Interrupts,
        tell: &mut impl FnMut(&Comparison) -> Result<()>,
    ) -> Result<()> {
        let rss = (
            memory::resident(self.berth.pid())?,
            memory::resident(self.peer.pid())?,
        );
        for server in [&self.berth, &self.peer] {
            server.client.pull(&self.image).await?;
        }
        let pss = self.memory_of_pods().await?;
        tell(&self.result("daemon-rss", "KiB", vec![rss]))?;
        tell(&self.result("pss-per-pod", "KiB", vec![pss]))?;
        let mut pairs = Vec::new();
        // the first pair fills caches
        for _ in 0..=terms.pairs {
            interrupts.check()?;
            let number = self.numbers(1);
            let ours = pod::live(&self.berth.client, &self.image, number);
            let ours = ours.await.context("berth")?;
            let theirs = pod::live(&self.peer.client, &self.image, number);
            pairs.push((ours, theirs.await.context("containerd")?));
        }
        pairs.remove(0);
        for (index, name) in CALLS.into_iter().enumerate() {
            let of_call = pairs
                .iter()
                .map(|(ours, theirs)| (ours[index], theirs[index]));
            tell(&self.result(name, "ms", of_call.collect()))?;
        }
        let whole = |life: &Life| 1000.0 / (life[3..].iter().sum::<f64>());
        let rates = pairs
            .iter()
            .map(|(ours, theirs)| (whole(ours), whole(theirs)));
        tell(&self.result("pods-per-second", "1/s", rates.collect()))?;
        self.measure_parallel(terms, interrupts, tell).await
    }

    async fn measure_parallel(
        &mut self,
        terms: &Terms,
        interrupts: &mut Interrupts,
        tell: &mut impl FnMut(&Comparison) -> Result<()>,
    ) -> Result<()> {
        let mut rates = Vec::new();
        let mut lives: [Vec<(f64, f64)>; CALLS.len()] = Default::default();
        for _ in 0..=terms.pairs.div_ceil(PARALLEL).max(3) {
            interrupts.check()?;
            let first = self.numbers(PARALLEL * LIVES);
            let ours = round(&self.berth.client, &self.image, first)
                .await
                .context("berth")?;
            let theirs = round(&self.peer.client, &self.image, first)
                .await
                .context("containerd")?;
            rates.push((ours.0, theirs.0));
            // sorted on each side: the fastest beside the fastest, the slowest beside the slowest
            for (index, pairs) in lives.iter_mut().enumerate() {
                let sorted = |lives: &[Life]| {
                    let mut values: Vec<f64> = lives.iter().map(|life| life[index]).collect();
                    values.sort_by(f64::total_cmp);
                    values
                };
                pairs.extend(sorted(&ours.1).into_iter().zip(sorted(&theirs.1)));
            }
        }
        for (name, mut pairs) in CALLS.into_iter().zip(lives) {
            pairs.drain(..PARALLEL * LIVES);
            tell(&self.result(&format!("{name} x{PARALLEL}"), "ms", pairs))?;
        }
        rates.remove(0);
        tell(&self.result(&format!("pods-per-second x{PARALLEL}"), "1/s", rates))?;
        Ok(())
    }

    /// Memory for each pod on both sides; notes how many groups a pod has on each.
    async fn memory_of_pods(&mut self) -> Result<(f64, f64)> {
        let mut found = [0.0; 2];
        let mut groups = [0.0; 2];
        let first = self.numbers(MEASURED_PODS);
        for (index, server) in [&self.berth, &self.peer].into_iter().enumerate() {
            let before = hierarchy::groups()?;
            for number in first..first + MEASURED_PODS {
                pod::begin(&server.client, &self.image, number).await?;
            }
            found[index] = memory::of_pods(server.keeper, MEASURED_PODS)?;
            groups[index] =
                hierarchy::groups()?.saturating_sub(before) as f64 / MEASURED_PODS as f64;
            server.client.remove_all().await?;
        }
        self.note.push_str(&format!(
            "; groups of a pod with one container: berth {}, containerd {}; memory over {} pods",
            groups[0], groups[1], MEASURED_PODS
        ));
        Ok((found[0], found[1]))
    }

    /// The first of so many numbers that no pod had before.
    fn numbers(&mut self, count: usize) -> usize {
        let first = self.next;
        self.next += count;
        first
    }

    fn result(&self, case: &str, unit: &'static str, pairs: Vec<(f64, f64)>) -> Comparison {
        Comparison {
            bench: "cri",
            case: case.into(),
            unit,
            peer: self.peer.client.name.clone(),
            pairs,
            note: self.note.clone(),
        }
    }
}

/// `PARALLEL` clients, each with `LIVES` pods after one another: pods a second, and each life.
async fn round(client: &Client, image: &str, first: usize) -> Result<(f64, Vec<Life>)> {
    let mut clients = JoinSet::new();
    let started = Instant::now();
    for index in 0..PARALLEL {
        let (client, image) = (client.clone(), image.to_owned());
        let first = first + index * LIVES;
        clients.spawn(async move {
            let mut lives = Vec::new();
            for number in first..first + LIVES {
                lives.push(pod::live(&client, &image, number).await?);
            }
            anyhow::Ok(lives)
        });
    }
    let mut all = Vec::new();
    for lives in clients.join_all().await {
        all.extend(lives?);
    }
    let rate = all.len() as f64 / started.elapsed().as_secs_f64();
    Ok((rate, all))
}
