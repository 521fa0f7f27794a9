//! What an entry in the audit log costs a pod: berth against berth without a log.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::pod::{self, CALLS};
use super::sample::Comparison;
use super::server::Server;
use super::{Terms, berth, cri, hierarchy, host};
use crate::cache::Cache;
use crate::preflight;
use crate::registry::Registry;
use crate::signal::Interrupts;

/// Measures every call of a pod's life and tells each result.
pub fn run(
    programs: &Path,
    terms: &Terms,
    mut tell: impl FnMut(&Comparison) -> Result<()>,
) -> Result<()> {
    preflight::ensure(&preflight::NODE)?;
    let cache = Cache::open()?;
    Registry::prepare(&cache)?;
    let mut interrupts = Interrupts::take()?;
    // from here on nothing outside is reached, and nothing outside is touched
    host::private_network()?;
    host::private_mounts()?;
    let registry = Registry::start(&cache, 5000)?;
    let image = format!("{}/busybox:latest", registry.address());
    let folder = tempfile::Builder::new()
        .prefix("berth-bench-")
        .tempdir_in("/var/tmp")?;
    let state = tempfile::Builder::new()
        .prefix("bb-")
        .tempdir_in("/dev/shm")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let logged = start(programs, state.path(), folder.path(), "logged").await?;
        let bare = match start(programs, state.path(), folder.path(), "bare").await {
            Ok(bare) => bare,
            Err(error) => {
                logged.end().await?;
                return Err(error);
            }
        };
        let measured = measure(&logged, &bare, &image, terms, &mut interrupts, &mut tell).await;
        let ended = logged.end().await.and(bare.end().await);
        measured.and(ended).and(hierarchy::remove(pod::CGROUP))
    })
}

/// A server with an audit log, or, as `bare`, with none that can be opened or has to be.
async fn start(programs: &Path, state: &Path, folder: &Path, name: &str) -> Result<Server> {
    let (folder, networks) = cri::side(folder, name)?;
    let state = state.join(name);
    fs::create_dir(&state)?;
    let setup = berth::setup(programs, &state, &folder, &networks)?;
    if name == "bare" {
        let file = folder.join("config.toml");
        let text = fs::read_to_string(&file)? + "audit.required = false\n";
        fs::write(&file, text)?;
        // a file where the folder should be
        fs::write(folder.join("audit"), "")?;
    }
    Server::start(setup).await
}

async fn measure(
    logged: &Server,
    bare: &Server,
    image: &str,
    terms: &Terms,
    interrupts: &mut Interrupts,
    tell: &mut impl FnMut(&Comparison) -> Result<()>,
) -> Result<()> {
    for server in [logged, bare] {
        server.client.pull(image).await?;
    }
    let mut pairs = Vec::new();
    // the first pair fills caches
    for number in 0..=terms.pairs {
        interrupts.check()?;
        let ours = pod::live(&logged.client, image, number).await;
        let theirs = pod::live(&bare.client, image, number).await;
        pairs.push((ours.context("with a log")?, theirs.context("without")?));
    }
    pairs.remove(0);
    for (index, name) in CALLS.into_iter().enumerate() {
        let of_call = pairs
            .iter()
            .map(|(ours, theirs)| (ours[index], theirs[index]));
        tell(&Comparison {
            bench: "audit",
            case: name.into(),
            unit: "ms",
            peer: "itself without an audit log".into(),
            pairs: of_call.collect(),
            note: "an entry at each start and execution, written before the answer".into(),
        })?;
    }
    Ok(())
}
