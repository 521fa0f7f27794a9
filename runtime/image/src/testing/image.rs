//! Images by hand.

use serde_json::json;

use super::archive::gzip;
use crate::Digest;

/// An image's documents and blobs.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub blobs: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub index: Vec<u8>,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image of gzip layers.
pub(crate) fn image(layers: &[Vec<u8>]) -> TestImage {
    let blobs = layers
        .iter()
        .map(|layer| (layer.clone(), gzip(layer), "tar+gzip"))
        .collect::<Vec<_>>();
    image_of(&blobs)
}

/// An image of layers given as uncompressed, compressed, and the media type's end.
pub(crate) fn image_of(layers: &[(Vec<u8>, Vec<u8>, &str)]) -> TestImage {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::of(&layer.0).to_string())
        .collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"User": "web", "Env": ["A=1"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let descriptors: Vec<_> = layers
        .iter()
        .map(|(_, blob, kind)| {
            json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"),
                "digest": Digest::of(blob), "size": blob.len(),
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": Digest::of(&config), "size": config.len()},
        "layers": descriptors,
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": Digest::of(&manifest), "size": manifest.len(),
                       "platform": {"os": "linux", "architecture": "amd64"}}],
    });
    let index = serde_json::to_vec(&index).unwrap();
    TestImage {
        blobs: layers.iter().map(|layer| layer.1.clone()).collect(),
        config,
        manifest,
        index,
    }
}

impl TestImage {
    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }
}
