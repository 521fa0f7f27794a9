//! Pushing over the distribution API (opencontainers/distribution-spec, *Push*).

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ureq::Agent;
use ureq::http::StatusCode;

use super::oci::{INDEX, Image, MANIFEST};
use crate::cache::digest;

/// Pushes the image to the registry at `host:port`; what is there already is not sent.
pub fn push(registry: &str, image: &Image) -> Result<()> {
    let client = Client {
        agent: agent(),
        base: format!("http://{registry}/v2/{}", image.repository),
    };
    for blob in &image.blobs {
        client
            .push_blob(blob)
            .with_context(|| format!("cannot push {}", blob.display()))?;
    }
    let manifest = format!("sha256:{}", digest(&image.manifest));
    client.put_manifest(&manifest, MANIFEST, &image.manifest)?;
    client.put_manifest(&image.tag, INDEX, &image.index)
}

/// A client that takes every HTTP status as an answer, not as an error.
pub fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into()
}

struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    fn push_blob(&self, blob: &Path) -> Result<()> {
        let name = blob
            .file_name()
            .and_then(|n| n.to_str())
            .context("a blob without a name")?;
        let digest = format!("sha256:{name}");
        let there = self
            .agent
            .head(format!("{}/blobs/{digest}", self.base))
            .call()?;
        if there.status() == StatusCode::OK {
            return Ok(());
        }
        let session = self
            .agent
            .post(format!("{}/blobs/uploads/", self.base))
            .send_empty()?;
        if session.status() != StatusCode::ACCEPTED {
            bail!("the registry opens no upload: {}", session.status());
        }
        let location = session
            .headers()
            .get("location")
            .context("an upload without a location")?;
        let location = location.to_str()?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let answer = self
            .agent
            .put(format!("{location}{separator}digest={digest}"))
            .header("content-type", "application/octet-stream")
            .send(File::open(blob)?)?;
        if answer.status() != StatusCode::CREATED {
            bail!("the registry refuses the blob: {}", answer.status());
        }
        Ok(())
    }

    fn put_manifest(&self, reference: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let mut answer = self
            .agent
            .put(format!("{}/manifests/{reference}", self.base))
            .header("content-type", media_type)
            .send(bytes)?;
        if answer.status() != StatusCode::CREATED {
            let reason = answer.body_mut().read_to_string().unwrap_or_default();
            bail!(
                "the registry refuses manifest {reference}: {} {reason}",
                answer.status()
            );
        }
        Ok(())
    }
}
