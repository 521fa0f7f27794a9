//! How content comes: ranges, breaks, sharing, damage, bounds.

use super::{names_in, two_layers};
use crate::testing::archive::{archive, file, gzip};
use crate::testing::image::{TestImage, image, image_of};
use crate::testing::registry::{Behaviour, Registry};
use crate::testing::{TestStore, is_root};
use crate::{CancellationToken, Digest, PullError, Reference};

/// Bytes that do not compress, from a seed.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn root_large_layers_come_by_ranges_and_broken_ones_are_resumed() {
    if !is_root() {
        return;
    }
    let mut large = file("large", "");
    large.data = noise(3 << 20);
    let test_image = image(&[archive(&[large])]);
    for (ranges, broken_at) in [
        (true, None),
        (true, Some(100_000)),
        (false, Some(100_000)),
        (false, None),
    ] {
        let registry = Registry::start(Behaviour {
            ranges,
            broken_at,
            ..Behaviour::default()
        })
        .await;
        registry.push("v1", &test_image);
        let store = TestStore::with(|config| config.range_size = 512 << 10);
        store
            .pull(&format!("{}/a:v1", registry.host()))
            .await
            .unwrap();
        let ranged = registry
            .seen()
            .iter()
            .filter(|seen| seen.headers.contains_key("range"))
            .count();
        assert!(
            ranged >= if ranges { 5 } else { 1 },
            "{ranges} {broken_at:?}: {ranged}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_concurrent_pulls_share_their_layers() {
    if !is_root() {
        return;
    }
    let registry = Registry::start(Behaviour::default()).await;
    registry.push("v1", &two_layers());
    let store = TestStore::new();
    let name = format!("{}/app:v1", registry.host());
    let pulls = (0..8).map(|_| store.pull(&name));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    let layer_requests = registry.seen().into_iter().filter(|seen| {
        two_layers()
            .blobs
            .iter()
            .any(|blob| seen.target.contains(Digest::of(blob).hex()))
    });
    assert_eq!(layer_requests.count(), 2);
}

#[tokio::test]
async fn root_content_that_is_not_its_digest_is_refused() {
    if !is_root() {
        return;
    }
    let good = two_layers();
    let tar = archive(&[file("a", "b")]);
    let other = archive(&[file("a", "c")]);
    let truncated = gzip(&tar)[..40].to_vec();
    let cases: [(Behaviour, TestImage, &str); 4] = [
        (
            Behaviour {
                wrong_blob: true,
                ..Behaviour::default()
            },
            good.clone(),
            "does not match digest",
        ),
        (
            Behaviour::default(),
            image_of(&[(tar.clone(), gzip(&other), "tar+gzip")]),
            "diff id",
        ),
        (
            Behaviour::default(),
            image_of(&[(tar.clone(), truncated, "tar+gzip")]),
            "cannot read the layer",
        ),
        (
            Behaviour {
                media_type: Some("application/vnd.docker.distribution.manifest.v2+json".into()),
                ..Behaviour::default()
            },
            good,
            "ambiguous",
        ),
    ];
    for (behaviour, test_image, expected) in cases {
        let registry = Registry::start(behaviour).await;
        registry.push("v1", &test_image);
        let store = TestStore::new();
        let error = store
            .pull(&format!("{}/a:v1", registry.host()))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(store.store.list().is_empty());
        assert_eq!(names_in(&store.config().root.join("layers")), ["empty"]);
    }
}

#[tokio::test]
async fn documents_are_bounded() {
    let registry = Registry::start(Behaviour {
        no_digest_header: true,
        ..Behaviour::default()
    })
    .await;
    let huge = format!("{{\"schemaVersion\":2,\"x\":\"{}\"}}", "a".repeat(9 << 20));
    registry.push_document("huge", crate::testing::image::MANIFEST, huge.as_bytes());
    let error = TestStore::new()
        .pull(&format!("{}/a:huge", registry.host()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
}

#[tokio::test]
async fn a_cancelled_pull_ends() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/a:v1", listener.local_addr().unwrap());
    let store = TestStore::new();
    let cancel = CancellationToken::new();
    let reference = Reference::parse(&name).unwrap();
    let pull = store.store.pull(&reference, None, cancel.clone());
    let (result, ()) = tokio::join!(pull, async { cancel.cancel() });
    assert!(matches!(result, Err(PullError::Cancelled { .. })));
}
