//! Volumes as a whole, on disk. What mounts needs root.

mod api;

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::chain::chain;
use crate::testing::pod;

fn volumes(root: &Path) -> Volumes {
    let objects = Objects::new(None);
    Volumes::new(root.to_path_buf(), objects, Surroundings::default())
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: not root");
    }
    root
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

async fn host_paths(volumes: &Volumes, pod: &Pod) -> Result<Vec<PathBuf>, VolumeError> {
    let container = &crate::pod::containers(pod)[0];
    let mounts = volumes.mounts_for(pod, container, &[]).await?;
    Ok(mounts.into_iter().map(|m| m.host_path.into()).collect())
}

#[tokio::test]
async fn disk_volumes_are_made_and_torn_down() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("kept"), "x").unwrap();
    let volumes = volumes(root.path());
    let mut pod = pod("{volumes: [{name: e, emptyDir: {}},
            {name: d, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}],
        containers: [{name: a, volumeMounts: [
            {name: e, mountPath: /e}, {name: d, mountPath: /d}]}]}");
    volumes.wait_ready(&pod).await.unwrap();
    let paths = host_paths(&volumes, &pod).await.unwrap();
    assert_eq!(mode(&paths[0]), 0o777);
    assert_eq!(std::fs::read_to_string(paths[1].join("l")).unwrap(), "");
    std::fs::write(paths[0].join("data"), "1").unwrap();
    symlink(outside.path(), paths[0].join("trap")).unwrap();
    pod.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    volumes.wait_ready(&pod).await.unwrap();
    assert_eq!(std::fs::read_to_string(paths[0].join("data")).unwrap(), "1");
    assert_eq!(
        std::fs::read_to_string(paths[1].join("l")).unwrap(),
        "a=\"b\""
    );
    let uid = PodUid::of(&pod).unwrap();
    volumes.teardown(&uid).await.unwrap();
    volumes.teardown(&uid).await.unwrap();
    assert!(!root.path().join("pods/u1/volumes").exists());
    assert!(outside.path().join("kept").exists());
}

#[tokio::test]
async fn what_cannot_be_made_is_named() {
    let root = tempfile::tempdir().unwrap();
    let volumes = volumes(root.path());
    for (volume, text) in [
        (
            "{name: v, hostPath: {path: /no/such/dir, type: Directory}}",
            "hostPath type check failed: /no/such/dir is not a directory",
        ),
        ("{name: v, nfs: {server: x, path: /}}", "not supported"),
        (
            "{name: ../v, emptyDir: {}}",
            "cannot be the name of a volume",
        ),
        (
            "{name: v, configMap: {name: x}}",
            "ConfigMap `default/x`: this node has no API server",
        ),
        (
            "{name: v, emptyDir: {medium: Memory, sizeLimit: much}}",
            "`much` is not a quantity",
        ),
    ] {
        let pod = pod(&format!("{{volumes: [{volume}], containers: []}}"));
        let text_got = chain(&volumes.wait_ready(&pod).await.unwrap_err());
        assert!(
            text_got.starts_with("MountVolume.SetUp failed for volume \"")
                && text_got.contains(text),
            "{text_got}"
        );
    }
}

#[tokio::test]
async fn root_memory_volumes_are_mounted_and_gone_after() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let volumes = volumes(root.path());
    let pod = pod("{securityContext: {fsGroup: 1234},
        volumes: [{name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}},
            {name: p, projected: {sources: [{downwardAPI:
                {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}}]}}],
        containers: [{name: a, volumeMounts: [
            {name: m, mountPath: /m}, {name: p, mountPath: /p}]}]}");
    volumes.wait_ready(&pod).await.unwrap();
    volumes.wait_ready(&pod).await.unwrap();
    let paths = host_paths(&volumes, &pod).await.unwrap();
    assert!(actual::is_mount_point(&paths[0]).unwrap());
    assert!(actual::is_mount_point(&paths[1]).unwrap());
    assert_eq!(actual::mounts_below(root.path()).unwrap().len(), 2);
    assert_eq!(mode(&paths[0]), 0o2777);
    assert_eq!(std::fs::metadata(&paths[0]).unwrap().gid(), 1234);
    assert_eq!(
        std::fs::read_to_string(paths[1].join("ns")).unwrap(),
        "default"
    );
    let too_much = vec![0_u8; 2 << 20];
    assert!(std::fs::write(paths[0].join("big"), too_much).is_err());
    volumes.teardown(&PodUid::of(&pod).unwrap()).await.unwrap();
    assert!(actual::mounts_below(root.path()).unwrap().is_empty());
    assert!(!root.path().join("pods/u1/volumes").exists());
}

#[tokio::test]
async fn root_sub_paths_stay_in_the_volume() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let volumes = volumes(root.path());
    let with = |sub: &str| {
        pod(&format!(
            "{{volumes: [{{name: e, emptyDir: {{}}}}], containers: [{{name: a, volumeMounts:
            [{{name: e, mountPath: /e, subPath: '{sub}'}}]}}]}}"
        ))
    };
    let first = with("made/deep");
    volumes.wait_ready(&first).await.unwrap();
    let volume = root
        .path()
        .join("pods/u1/volumes/kubernetes.io~empty-dir/e");
    std::fs::create_dir(volume.join("d")).unwrap();
    std::fs::write(volume.join("d/f"), "inside").unwrap();
    symlink("/etc", volume.join("absolute")).unwrap();
    symlink("../../../../..", volume.join("up")).unwrap();
    symlink("d", volume.join("link")).unwrap();
    let paths = host_paths(&volumes, &first).await.unwrap();
    assert!(paths[0].is_dir() && actual::is_mount_point(&paths[0]).unwrap());
    assert_eq!(mode(&volume.join("made/deep")), 0o777);
    for sub in ["d/f", "link/f", "d/f"] {
        let paths = host_paths(&volumes, &with(sub)).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(&paths[0]).unwrap(),
            "inside",
            "{sub}"
        );
    }
    for sub in [
        "absolute",
        "absolute/passwd",
        "up",
        "up/x",
        "../x",
        "/etc",
        "link/../../x",
    ] {
        let error = host_paths(&volumes, &with(sub)).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("subPath"), "{sub}: {text}");
    }
    assert!(!root.path().join("x").exists());
    volumes
        .teardown(&PodUid::of(&first).unwrap())
        .await
        .unwrap();
    assert!(actual::mounts_below(root.path()).unwrap().is_empty());
    assert!(!root.path().join("pods/u1/volume-subpaths").exists());
}
