//! Manifests and indexes: what they are, which platform is ours, what they may say.
//!
//! image-spec v1.1 "manifest.md", "image-index.md"; Docker's "Image Manifest Version 2, Schema 2".

use serde::Deserialize;

use crate::config::Limits;
use crate::digest::Digest;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// What a registry is asked for.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
/// Layers that are tar archives, compressed or not.
const LAYERS: [&str; 9] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";

/// Why a document is not an image for this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right form.
    #[error("manifest is malformed: {0}")]
    Malformed(String),
    /// It could be read as two kinds of document (CVE-2021-41190).
    #[error("manifest is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// A media type that is not an image's.
    #[error("media type `{0}` is not supported")]
    MediaType(String),
    /// No entry of an index is for this machine.
    #[error("no match for platform {OS}/{ARCHITECTURE} in the manifest")]
    Platform,
    /// A size or count is out of bounds.
    #[error("manifest is out of bounds: {0}")]
    Bounds(&'static str),
    /// Configuration and manifest disagree.
    #[error("image configuration does not fit its manifest: {0}")]
    Config(String),
}

/// Reference to content, as far as it matters here. `urls` are never followed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
}

/// An image's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// A document found under a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    /// The manifest in it that is for this machine.
    Index(Descriptor),
    Manifest(Manifest),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<serde_json::Value>,
    config: Option<serde_json::Value>,
    layers: Option<serde_json::Value>,
    fs_layers: Option<serde_json::Value>,
}

/// Reads a document; `stated` is the media type of the answer or descriptor it came by.
pub(crate) fn parse(
    bytes: &[u8],
    stated: Option<&str>,
    limits: &Limits,
) -> Result<Document, ManifestError> {
    if bytes.len() as u64 > limits.document {
        return Err(ManifestError::Bounds("document"));
    }
    let raw: Raw = from_json(bytes)?;
    let stated = stated.filter(|stated| ACCEPTED.contains(stated));
    if let (Some(own), Some(stated)) = (raw.media_type.as_deref(), stated)
        && own != stated
    {
        return Err(ManifestError::Ambiguous(
            "its mediaType is not the one it was served as",
        ));
    }
    if raw.fs_layers.is_some() || raw.schema_version == Some(1) {
        return Err(ManifestError::MediaType("Docker schema 1".to_owned()));
    }
    if raw.schema_version != Some(2) {
        return Err(ManifestError::Malformed(
            "schemaVersion is not 2".to_owned(),
        ));
    }
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) {
        return Err(ManifestError::Ambiguous("it has both manifests and layers"));
    }
    let is_index = match raw.media_type.as_deref().or(stated) {
        Some(OCI_INDEX | DOCKER_LIST) => true,
        Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
        Some(other) => return Err(ManifestError::MediaType(other.to_owned())),
        None => raw.manifests.is_some(),
    };
    if is_index {
        let entries = raw
            .manifests
            .ok_or(ManifestError::Ambiguous("an index without manifests"))?;
        choose(from_value(entries)?).map(Document::Index)
    } else {
        let (Some(config), Some(layers)) = (raw.config, raw.layers) else {
            return Err(ManifestError::Ambiguous(
                "a manifest without config and layers",
            ));
        };
        let manifest = Manifest {
            config: from_value(config)?,
            layers: from_value(layers)?,
        };
        manifest.check(limits)?;
        Ok(Document::Manifest(manifest))
    }
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|error| ManifestError::Malformed(error.to_string()))
}

fn from_value<T: serde::de::DeserializeOwned>(
    value: serde_json::Value,
) -> Result<T, ManifestError> {
    serde_json::from_value(value).map_err(|error| ManifestError::Malformed(error.to_string()))
}

/// The first entry for this machine; one without a platform only if there is no better.
fn choose(entries: Vec<Descriptor>) -> Result<Descriptor, ManifestError> {
    let fits = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => {
            let baseline = matches!(platform.variant.as_deref(), None | Some("" | "v1"));
            platform.os == OS && platform.architecture == ARCHITECTURE && baseline
        }
        None => false,
    };
    let image = |entry: &&Descriptor| {
        entry.media_type.is_empty() || ACCEPTED.contains(&entry.media_type.as_str())
    };
    let exact = entries.iter().filter(image).find(fits);
    let unspecified = || {
        entries
            .iter()
            .filter(image)
            .find(|entry| entry.platform.is_none())
    };
    exact
        .or_else(unspecified)
        .cloned()
        .ok_or(ManifestError::Platform)
}

impl Manifest {
    fn check(&self, limits: &Limits) -> Result<(), ManifestError> {
        if !matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(ManifestError::MediaType(self.config.media_type.clone()));
        }
        if self.config.size > limits.document {
            return Err(ManifestError::Bounds("config size"));
        }
        if self.layers.len() > limits.layers {
            return Err(ManifestError::Bounds("number of layers"));
        }
        for layer in &self.layers {
            if !LAYERS.contains(&layer.media_type.as_str()) {
                return Err(ManifestError::MediaType(layer.media_type.clone()));
            }
            if layer.size > limits.layer_bytes {
                return Err(ManifestError::Bounds("layer size"));
            }
        }
        Ok(())
    }

    /// Bytes of configuration and layers.
    pub fn content_size(&self) -> u64 {
        let sizes = self.layers.iter().map(|layer| layer.size);
        sizes.fold(self.config.size, u64::saturating_add)
    }
}

/// An image configuration, with the digests of its layers.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub parsed: oci_spec::image::ImageConfiguration,
    pub diff_ids: Vec<Digest>,
}

/// Reads an image configuration and checks that it is for this machine and for `layers` layers.
pub(crate) fn parse_config(bytes: &[u8], layers: usize) -> Result<Config, ManifestError> {
    let wrong = |reason: String| ManifestError::Config(reason);
    let parsed: oci_spec::image::ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    let (os, architecture) = (parsed.os().to_string(), parsed.architecture().to_string());
    if os != OS || architecture != ARCHITECTURE {
        return Err(ManifestError::Platform);
    }
    let diff_ids: Result<Vec<Digest>, _> = parsed
        .rootfs()
        .diff_ids()
        .iter()
        .map(|id| Digest::parse(id))
        .collect();
    let diff_ids = diff_ids.map_err(|error| wrong(format!("diff id: {error}")))?;
    if diff_ids.len() != layers {
        return Err(wrong(format!(
            "{} diff ids for {layers} layers",
            diff_ids.len()
        )));
    }
    Ok(Config { parsed, diff_ids })
}

/// The chain ids of a list of diff ids, bottom first (image-spec "config.md#layer-chainid").
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

#[cfg(test)]
mod tests;
