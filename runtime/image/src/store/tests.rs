#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at what the store wrote"
)]

use std::path::Path;

mod debian_registry;
mod hosts;
mod overlay;
mod transfer;

use super::*;
use crate::testing::archive::{archive, dir, file, gzip, hardlink, symlink};
use crate::testing::image::{TestImage, image, image_of};
use crate::testing::registry::{Behaviour, Registry};
use crate::testing::{TestStore, describe_tree, is_root};

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/srv:/bin/sh\n";

fn two_layers() -> TestImage {
    image(&[
        archive(&[
            dir("etc/").mode(0o750).owner(3, 4),
            file("etc/passwd", PASSWD),
            file("etc/old", "old"),
            dir("var/cache/"),
            file("var/cache/a", "a"),
        ]),
        archive(&[
            file("etc/new", "new").mode(0o4755).owner(5, 6),
            file("etc/.wh.old", ""),
            file("var/cache/.wh..wh..opq", ""),
            hardlink("etc/linked", "etc/passwd"),
        ]),
    ])
}

#[tokio::test]
async fn root_an_image_is_pulled_unpacked_and_removed() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(Behaviour::default()).await;
    let test_image = two_layers();
    registry.push("v1", &test_image);
    let store = TestStore::new();
    let name = format!("{}/app:v1", registry.host());
    let pulled = store.pull(&name).await.unwrap();
    assert_eq!(pulled.id, test_image.id());
    assert_eq!(pulled.repo_tags, std::slice::from_ref(&name));
    let index = Digest::of(&test_image.index);
    assert_eq!(
        pulled.repo_digests,
        [format!("{}/app@{index}", registry.host())]
    );
    assert_eq!(pulled.user.as_deref(), Some("web"));
    let layers = store.store.prepare("c1", &pulled.id).await.unwrap();
    assert_eq!(
        describe_tree(&layers.lower[0]),
        [
            "etc 750 3:4 dir",
            "etc/linked 644 0:0 \"root:x:0:0::/root:/bin/sh\\nweb:x:1000:1000::/srv:/bin/sh\\n\" links 1",
            "etc/new 4755 5:6 \"new\" links 1",
            "etc/old whiteout",
            "var 755 0:0 dir",
            "var/cache 755 0:0 dir opaque",
        ]
    );
    let user = store
        .store
        .lookup_user(&pulled.id, &UserSpec::parse("web").unwrap())
        .await
        .unwrap();
    assert_eq!(
        (user.uid, user.gid, user.home.as_deref()),
        (1000, 1000, Some("/srv"))
    );
    assert_eq!(store.store.prepare("c1", &pulled.id).await.unwrap(), layers);
    std::fs::write(layers.upper.join("x"), vec![0; 10_000]).unwrap();
    let usage = store.store.snapshot_usage("c1").await.unwrap();
    assert_eq!((usage.bytes, usage.inodes), (12_288, 1));
    for found in [
        &name,
        pulled.id.as_str(),
        &pulled.id.hex()[..12],
        &pulled.repo_digests[0],
    ] {
        assert_eq!(store.store.status(found).unwrap().id, pulled.id, "{found}");
    }
    // Layers stay while a container stands on them, also over a restart.
    store.store.remove(pulled.id.as_str()).await.unwrap();
    store.store.remove(pulled.id.as_str()).await.unwrap();
    assert!(store.store.list().is_empty() && layers.lower[0].is_dir());
    drop(store.store);
    let reopened = ImageStore::open(Config::new(store.dir.path().join("images"), "/none")).unwrap();
    assert_eq!(reopened.snapshots(), ["c1"]);
    reopened.remove_snapshot("c1").await.unwrap();
    reopened.remove_snapshot("c1").await.unwrap();
}

#[tokio::test]
async fn root_an_image_survives_a_restart_and_orphans_do_not() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(Behaviour::default()).await;
    registry.push("v1", &two_layers());
    let store = TestStore::new();
    let pulled = store
        .pull(&format!("{}/app:v1", registry.host()))
        .await
        .unwrap();
    let config = store.config();
    drop(store.store);
    for orphan in [
        "layers/999",
        "layers/new-x",
        "layers/gone-1",
        "snapshots/new-y",
        "snapshots/z",
    ] {
        std::fs::create_dir_all(config.root.join(orphan).join("below")).unwrap();
    }
    let reopened = ImageStore::open(config.clone()).unwrap();
    assert_eq!(reopened.list().len(), 1);
    assert_eq!(names_in(&config.root.join("layers")), ["1", "2", "empty"]);
    assert!(names_in(&config.root.join("snapshots")).is_empty());
    drop(reopened);
    // A lost layer loses the image: it is pulled again.
    std::fs::remove_dir_all(config.root.join("layers/1")).unwrap();
    let reopened = ImageStore::open(config.clone()).unwrap();
    assert!(reopened.status(pulled.id.as_str()).is_none());
    let reference = Reference::parse(&pulled.repo_tags[0]).unwrap();
    reopened
        .pull(&reference, None, CancellationToken::new())
        .await
        .unwrap();
    reopened.remove(pulled.id.as_str()).await.unwrap();
    assert_eq!(names_in(&config.root.join("layers")), ["empty"]);
    assert!(names_in(&config.root.join("blobs/sha256")).is_empty());
}

fn names_in(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn root_tags_move_and_are_taken_away_one_by_one() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(Behaviour::default()).await;
    registry.push("a", &two_layers());
    registry.push("b", &two_layers());
    let store = TestStore::new();
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let first = store.pull(&name("a")).await.unwrap();
    let blobs = registry.blob_requests();
    let both = store.pull(&name("b")).await.unwrap();
    assert_eq!(both.repo_tags, [name("a"), name("b")]);
    assert_eq!(registry.blob_requests(), blobs, "the content was there");
    store.store.remove(&name("a")).await.unwrap();
    assert_eq!(
        store.store.status(first.id.as_str()).unwrap().repo_tags,
        [name("b")]
    );
    let other = image(&[archive(&[file("f", "x")])]);
    registry.push("b", &other);
    let moved = store.pull(&name("b")).await.unwrap();
    assert_eq!(moved.id, other.id());
    assert!(
        store
            .store
            .status(first.id.as_str())
            .unwrap()
            .repo_tags
            .is_empty()
    );
    let by_digest = store.pull(&first.repo_digests[0]).await.unwrap();
    assert_eq!(by_digest.id, first.id);
    store.store.remove(&name("b")).await.unwrap();
    assert_eq!(store.store.list().len(), 1);
}

#[tokio::test]
async fn missing_images_say_so_in_the_registrys_words() {
    let registry = Registry::start(Behaviour::default()).await;
    let store = TestStore::new();
    let name = format!("{}/nope:v1", registry.host());
    let error = store.pull(&name).await.unwrap_err();
    let host = registry.host();
    assert_eq!(
        error.to_string(),
        format!("failed to resolve reference \"{name}\": {host}: manifest unknown: not found")
    );
    assert!(error.is_not_found() && !error.is_retryable());
    let nobody = store.pull("127.0.0.1:1/x").await.unwrap_err();
    assert!(
        nobody.is_retryable() && nobody.to_string().contains("refused"),
        "{nobody}"
    );
}

#[tokio::test]
async fn root_every_compression_unpacks_to_the_same() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(Behaviour::default()).await;
    let tar = archive(&[
        dir("d/"),
        file("d/f", "text"),
        symlink("d/l", "/etc/passwd"),
    ]);
    let store = TestStore::new();
    let halves = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    let mut trees = Vec::new();
    for (name, blob, kind) in [
        ("gzip", gzip(&tar), "tar+gzip"),
        ("members", halves, "tar+gzip"),
        ("zstd", zstd.clone(), "tar+zstd"),
        ("wrong-name", zstd, "tar+gzip"),
        ("plain", tar.clone(), "tar"),
    ] {
        registry.push(name, &image_of(&[(tar.clone(), blob, kind)]));
        let pulled = store
            .pull(&format!("{}/a:{name}", registry.host()))
            .await
            .unwrap();
        let layers = store.store.prepare(name, &pulled.id).await.unwrap();
        trees.push(describe_tree(&layers.lower[0]));
        store.store.remove_snapshot(name).await.unwrap();
        store.store.remove(pulled.id.as_str()).await.unwrap();
    }
    assert!(
        trees.windows(2).all(|pair| pair[0] == pair[1]),
        "{trees:#?}"
    );
    assert_eq!(trees[0].len(), 3);
}

#[tokio::test]
async fn keys_cannot_name_other_directories() {
    let store = TestStore::new();
    for key in [
        "",
        "..",
        ".",
        "a/b",
        "/etc",
        "new-x",
        "gone-x",
        "-a",
        "a\0b",
        &"k".repeat(129),
    ] {
        assert!(store.store.remove_snapshot(key).await.is_err(), "{key:?}");
    }
    let missing = store.store.prepare("c1", &Digest::of(b"x")).await;
    assert!(matches!(missing, Err(SnapshotError::NoImage(_))));
}

#[test]
fn pins_match_names() {
    let pins = vec!["registry.k8s.io/pause:*".to_owned(), "nginx".to_owned()];
    assert!(is_pinned("registry.k8s.io/pause:3.10", &pins));
    assert!(is_pinned("docker.io/library/nginx:latest", &pins));
    assert!(!is_pinned("docker.io/library/redis:latest", &pins));
}
