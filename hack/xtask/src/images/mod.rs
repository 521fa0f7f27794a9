//! The two images of the tour, made from Debian packages: `busybox` and `web`.

mod oci;
mod pause;
mod push;
mod rootfs;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::apt::{Apt, TRIXIE};
use crate::cache::Cache;

pub use oci::Image;
pub use pause::pause;
pub use push::{agent, push};

/// Names of the repositories, and of the tags each has.
pub const IMAGES: [(&str, &[&str]); 2] = [("busybox", &["latest"]), ("web", &["latest", "1", "2"])];

/// What the layers are made of. `util-linux` gives `ipcs`, which the CRI suite runs.
const PACKAGES: [&str; 7] = [
    "busybox",
    "bash",
    "base-passwd",
    "netbase",
    "util-linux",
    "nginx-light",
    "curl",
];

/// Raised when the way the images are assembled changes, so that caches follow.
const RECIPE: u32 = 1;

/// Prints the references of both images and the folder they are kept in.
pub fn run() -> Result<ExitCode> {
    let folder = ensure(&Cache::open()?)?;
    println!("{}", folder.display());
    for image in load(&folder)? {
        println!(
            "{}:{} {}",
            image.repository,
            image.tag,
            image.index_digest()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder that holds both images, made when it is absent.
pub fn ensure(cache: &Cache) -> Result<PathBuf> {
    let recipe = format!("{RECIPE} {TRIXIE} {}", PACKAGES.join(" "));
    cache.artifact("images", &recipe, |into| {
        eprintln!("xtask: making the images busybox and web from Debian packages");
        let packages = tempfile::tempdir()?;
        Apt::suite(cache, TRIXIE)?.extract(&PACKAGES, packages.path())?;
        build(packages.path(), into)
    })
}

/// Every image of the folder, by repository and tag.
pub fn load(folder: &Path) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for (repository, tags) in IMAGES {
        for tag in tags {
            images.push(Image::open(folder, repository, tag)?);
        }
    }
    Ok(images)
}

fn build(packages: &Path, into: &Path) -> Result<()> {
    let blobs = into.join("blobs");
    fs::create_dir_all(&blobs)?;
    let busybox = rootfs::busybox(packages)?;
    let base = oci::write_layer(&busybox, &blobs)?;
    let web = oci::write_layer(&rootfs::web(packages, &busybox)?, &blobs)?;
    let shell = oci::Settings {
        command: &["sh"],
        ..oci::Settings::default()
    };
    oci::write_image(
        into,
        "busybox",
        "latest",
        std::slice::from_ref(&base),
        &shell,
    )?;
    for (tag, version) in [("latest", "1"), ("1", "1"), ("2", "2")] {
        let environment = format!("WEB_VERSION={version}");
        let server = oci::Settings {
            entrypoint: &["/usr/sbin/nginx", "-g", "daemon off;"],
            command: &[],
            user: "101:101",
            environment: &[&environment],
            port: Some(8080),
            stop_signal: Some("SIGQUIT"),
        };
        oci::write_image(into, "web", tag, &[base.clone(), web.clone()], &server)?;
    }
    Ok(())
}
