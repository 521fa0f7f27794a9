//! What the kernel's overlayfs makes of the layers.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::two_layers;
use crate::Layers;
use crate::testing::archive::{archive, dir, file};
use crate::testing::image::{TestImage, image};
use crate::testing::registry::{Behaviour, Registry};
use crate::testing::{TestStore, describe_tree, is_root};

/// Mounts the layers in a mount namespace of a thread of its own and describes the result. The
/// mount ends with the thread.
fn mounted(layers: &Layers, target: &Path) -> Vec<String> {
    let (layers, target) = (layers.clone(), target.to_owned());
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        // mount(2) takes a page of options: short names, relative to the layers.
        let parent = layers.lower[0].parent().unwrap();
        std::env::set_current_dir(parent).unwrap();
        let names: Vec<&str> = layers
            .lower
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap())
            .collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            names.join(":"),
            layers.upper.display(),
            layers.work.display()
        );
        mount(
            Some("overlay"),
            &target,
            Some("overlay"),
            MsFlags::empty(),
            Some(&options[..]),
        )
        .unwrap();
        describe_tree(&target)
    });
    thread.join().unwrap()
}

async fn mounted_image(image: &TestImage) -> Vec<String> {
    let registry = Registry::start(Behaviour::default()).await;
    registry.push("v1", image);
    let store = TestStore::new();
    let pulled = store
        .pull(&format!("{}/app:v1", registry.host()))
        .await
        .unwrap();
    let layers = store.store.prepare("c1", &pulled.id).await.unwrap();
    let target: PathBuf = store.dir.path().join("merged");
    std::fs::create_dir(&target).unwrap();
    let tree = mounted(&layers, &target);
    store.store.remove_snapshot("c1").await.unwrap();
    tree
}

#[tokio::test]
async fn root_the_mount_shows_whiteouts_and_opaque_directories() {
    if !is_root() {
        return;
    }
    assert_eq!(
        mounted_image(&two_layers()).await,
        [
            "etc 750 3:4 dir",
            "etc/linked 644 0:0 \"root:x:0:0::/root:/bin/sh\\nweb:x:1000:1000::/srv:/bin/sh\\n\" links 1",
            "etc/new 4755 5:6 \"new\" links 1",
            "etc/passwd 644 0:0 \"root:x:0:0::/root:/bin/sh\\nweb:x:1000:1000::/srv:/bin/sh\\n\" links 1",
            "var 755 0:0 dir",
            "var/cache 755 0:0 dir",
        ]
    );
}

#[tokio::test]
async fn root_an_opaque_root_hides_all_below() {
    if !is_root() {
        return;
    }
    let below = archive(&[file("old", "x"), dir("d/"), file("d/old", "x")]);
    let above = archive(&[file(".wh..wh..opq", ""), file("new", "y")]);
    assert_eq!(
        mounted_image(&image(&[below, above])).await,
        ["new 644 0:0 \"y\" links 1"]
    );
}

#[tokio::test]
async fn root_a_hundred_layers_and_none_mount() {
    if !is_root() {
        return;
    }
    let layers: Vec<Vec<u8>> = (0..100)
        .map(|at| {
            archive(&[
                file(&format!("a/b/c/d/e/f/{at}"), ""),
                file("a/b/top", &at.to_string()),
            ])
        })
        .collect();
    let tree = mounted_image(&image(&layers)).await;
    assert_eq!(
        tree.iter()
            .filter(|line| line.starts_with("a/b/c/d/e/f/"))
            .count(),
        100
    );
    assert!(tree.contains(&"a/b/top 644 0:0 \"99\" links 1".to_owned()));
    assert!(mounted_image(&image(&[])).await.is_empty());
}
