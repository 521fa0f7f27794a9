//! An image of berth's pause program, for CRI servers that hold sandboxes by an image.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::oci::{self, Image, Settings};
use super::tree::Tree;

/// The image `pause:latest` of this static program, written into the folder `into`.
pub fn pause(program: &Path, into: &Path) -> Result<Image> {
    let blobs = into.join("blobs");
    fs::create_dir_all(&blobs)?;
    let mut tree = Tree::default();
    tree.file("berth-pause", program)?;
    let layer = oci::write_layer(&tree, &blobs)?;
    let settings = Settings {
        entrypoint: &["/berth-pause"],
        ..Settings::default()
    };
    oci::write_image(into, "pause", "latest", &[layer], &settings)?;
    Image::open(into, "pause", "latest")
}
