//! OCI layers, configurations, manifests and indexes, the same bytes on each machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::tree::Tree;
use crate::cache::digest;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// A gzip layer in the blob folder.
#[derive(Clone)]
pub struct Layer {
    digest: String,
    size: u64,
    diff_id: String,
}

/// What the image's configuration says about running it.
#[derive(Default)]
pub struct Settings<'a> {
    pub entrypoint: &'a [&'a str],
    pub command: &'a [&'a str],
    pub user: &'a str,
    pub environment: &'a [&'a str],
    pub port: Option<u16>,
    pub stop_signal: Option<&'a str>,
}

/// An image of the cache: its index, and every blob below it.
pub struct Image {
    pub repository: String,
    pub tag: String,
    pub index: Vec<u8>,
    pub manifest: Vec<u8>,
    pub blobs: Vec<PathBuf>,
}

impl Image {
    /// Reads the image back from the folder `write_image` filled.
    pub fn open(folder: &Path, repository: &str, tag: &str) -> Result<Self> {
        let named = folder.join(format!("{repository}.{tag}.json"));
        let index = fs::read(&named).with_context(|| format!("cannot read {}", named.display()))?;
        let blob = |value: &Value| {
            let digest = value["digest"]
                .as_str()
                .context("a descriptor without a digest")?;
            anyhow::Ok(blob_path(&folder.join("blobs"), digest))
        };
        let parsed: Value = serde_json::from_slice(&index)?;
        let manifest = fs::read(blob(&parsed["manifests"][0])?)?;
        let parsed: Value = serde_json::from_slice(&manifest)?;
        let mut blobs = vec![blob(&parsed["config"])?];
        for layer in parsed["layers"]
            .as_array()
            .context("a manifest without layers")?
        {
            blobs.push(blob(layer)?);
        }
        Ok(Self {
            repository: repository.into(),
            tag: tag.into(),
            index,
            manifest,
            blobs,
        })
    }

    /// The digest the tag stands for.
    pub fn index_digest(&self) -> String {
        format!("sha256:{}", digest(&self.index))
    }
}

/// Writes the tree as a gzip layer named by its digest.
pub fn write_layer(tree: &Tree, blobs: &Path) -> Result<Layer> {
    let staged = blobs.join("layer.partial");
    let file = Digesting::new(File::create(&staged)?);
    let gzip: GzEncoder<_> = GzBuilder::new()
        .mtime(0)
        .write(file, Compression::default());
    let mut plain = Digesting::new(gzip);
    tree.write(&mut plain)?;
    let (gzip, diff_id, _) = plain.finish();
    let (_, digest, size) = gzip.finish()?.finish();
    fs::rename(&staged, blob_path(blobs, &digest))?;
    Ok(Layer {
        digest,
        size,
        diff_id,
    })
}

/// Writes configuration, manifest and index of an image.
pub fn write_image(
    folder: &Path,
    repository: &str,
    tag: &str,
    layers: &[Layer],
    settings: &Settings<'_>,
) -> Result<()> {
    let blobs = folder.join("blobs");
    let configuration = write_json(&blobs, CONFIGURATION, &configuration(layers, settings))?;
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|l| json!({"mediaType": LAYER, "digest": l.digest, "size": l.size}))
        .collect();
    let mut manifest = write_json(
        &blobs,
        MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configuration,
            "layers": descriptors,
        }),
    )?;
    manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    let named = folder.join(format!("{repository}.{tag}.json"));
    fs::write(named, serde_json::to_vec(&index)?)?;
    Ok(())
}

fn configuration(layers: &[Layer], settings: &Settings<'_>) -> Value {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let environment: Vec<&str> = std::iter::once(path)
        .chain(settings.environment.iter().copied())
        .collect();
    let mut config = json!({"Env": environment});
    let mut set = |name: &str, value: Value| config[name] = value;
    if !settings.entrypoint.is_empty() {
        set("Entrypoint", json!(settings.entrypoint));
    }
    if !settings.command.is_empty() {
        set("Cmd", json!(settings.command));
    }
    if !settings.user.is_empty() {
        set("User", json!(settings.user));
    }
    if let Some(port) = settings.port {
        set("ExposedPorts", json!({format!("{port}/tcp"): {}}));
    }
    if let Some(signal) = settings.stop_signal {
        set("StopSignal", json!(signal));
    }
    let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
    let history: Vec<Value> = layers
        .iter()
        .map(|_| json!({"created": EPOCH, "created_by": "cargo xtask images"}))
        .collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": EPOCH,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    })
}

fn write_json(blobs: &Path, media_type: &str, value: &Value) -> Result<Value> {
    let bytes = serde_json::to_vec(value)?;
    let digest = format!("sha256:{}", digest(&bytes));
    fs::write(blob_path(blobs, &digest), &bytes)?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
}

fn blob_path(blobs: &Path, digest: &str) -> PathBuf {
    blobs.join(digest.strip_prefix("sha256:").unwrap_or(digest))
}

/// Passes bytes on, taking their digest and number.
struct Digesting<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Digesting<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
        }
    }

    fn finish(self) -> (W, String, u64) {
        (
            self.inner,
            format!("sha256:{}", hex::encode(self.hash.finalize())),
            self.size,
        )
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
