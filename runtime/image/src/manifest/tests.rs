use super::*;

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn manifest(config: &str, layer: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",
        "config":{{"mediaType":"{config}","digest":"{}","size":10}},
        "layers":[{{"mediaType":"{layer}","digest":"{}","size":20,"urls":["http://evil/"]}}]}}"#,
        digest('a'),
        digest('b'),
    )
}

fn read(text: &str, stated: Option<&str>) -> Result<Document, ManifestError> {
    parse(text.as_bytes(), stated, &Limits::default())
}

#[test]
fn images_of_both_kinds_parse() {
    for (config, layer) in [
        (OCI_CONFIG, LAYERS[1]),
        (DOCKER_CONFIG, LAYERS[7]),
        (OCI_CONFIG, LAYERS[2]),
    ] {
        let Document::Manifest(manifest) = read(&manifest(config, layer), None).unwrap() else {
            panic!("not a manifest");
        };
        assert_eq!(manifest.content_size(), 30);
    }
}

#[test]
fn the_platform_is_chosen() {
    let entry = |letter, platform: &str| {
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":1{platform}}}"#,
            digest(letter)
        )
    };
    let platform = |os, arch| format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#);
    let index = |entries: &[String]| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
    };
    let chosen = |entries: &[String]| match read(&index(entries), Some(OCI_INDEX)) {
        Ok(Document::Index(entry)) => Ok(entry.digest.to_string()),
        Ok(Document::Manifest(_)) => panic!("not an index"),
        Err(error) => Err(error),
    };
    let arm = entry('a', &platform("linux", "arm64"));
    let ours = entry('b', &platform("linux", "amd64"));
    let windows = entry('c', &platform("windows", "amd64"));
    let attestation = entry('d', &platform("unknown", "unknown"));
    let v3 = entry(
        'e',
        r#","platform":{"os":"linux","architecture":"amd64","variant":"v3"}"#,
    );
    assert_eq!(
        chosen(&[arm.clone(), v3.clone(), ours, windows.clone()]),
        Ok(digest('b'))
    );
    assert_eq!(
        chosen(&[arm, windows, attestation, v3]),
        Err(ManifestError::Platform)
    );
    assert_eq!(chosen(&[]), Err(ManifestError::Platform));
}

#[test]
fn confusion_and_excess_are_refused() {
    let good = manifest(OCI_CONFIG, LAYERS[1]);
    let both = good.replacen(
        "{\"schemaVersion\":2",
        "{\"schemaVersion\":2,\"manifests\":[]",
        1,
    );
    for (text, stated) in [
        (both.clone(), None),
        (both.replace(OCI_MANIFEST, OCI_INDEX), None),
        (good.clone(), Some(OCI_INDEX)),
        (good.clone(), Some(DOCKER_MANIFEST)),
        (good.replace(OCI_MANIFEST, OCI_INDEX), None),
        (good.replace(OCI_MANIFEST, "application/json"), None),
        (
            good.replace("\"schemaVersion\":2", "\"schemaVersion\":1"),
            None,
        ),
        (
            good.replace("\"schemaVersion\":2", "\"schemaVersion\":2,\"fsLayers\":[]"),
            None,
        ),
        (
            good.replace(&digest('b'), "sha256:../../../../etc/passwd"),
            None,
        ),
        (good.replace(&digest('b'), &digest('B')), None),
        (good.replace("\"size\":20", "\"size\":-1"), None),
        (good.replace("\"size\":20", "\"size\":1e30"), None),
        (
            good.replace("\"size\":20", "\"size\":9223372036854775807"),
            None,
        ),
        (good.replace("\"size\":10", "\"size\":9000000"), None),
        (
            manifest("application/vnd.cncf.helm.config.v1+json", LAYERS[1]),
            None,
        ),
        (
            manifest(
                OCI_CONFIG,
                "application/vnd.oci.image.layer.v1.tar+encrypted",
            ),
            None,
        ),
        ("[]".to_owned(), None),
        (String::new(), None),
        ("{".repeat(100_000), None),
    ] {
        assert!(
            read(&text, stated).is_err(),
            "{}",
            &text[..text.len().min(300)]
        );
    }
}

#[test]
fn configurations_are_checked() {
    let config = |os: &str, ids: &str| {
        format!(
            r#"{{"os":"{os}","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
        )
    };
    let one = format!("\"{}\"", digest('a'));
    assert_eq!(
        parse_config(config("linux", &one).as_bytes(), 1)
            .unwrap()
            .diff_ids
            .len(),
        1
    );
    assert!(parse_config(config("linux", &one).as_bytes(), 2).is_err());
    assert!(parse_config(config("windows", &one).as_bytes(), 1).is_err());
    assert!(parse_config(config("linux", "\"sha256:x\"").as_bytes(), 1).is_err());
    assert!(parse_config(b"{}", 0).is_err());
}

#[test]
fn chain_ids_follow_the_specification() {
    let ids = [Digest::of(b"a"), Digest::of(b"b")];
    let chain = chain_ids(&ids);
    assert_eq!(chain[0], ids[0]);
    assert_eq!(
        chain[1],
        Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes())
    );
    assert!(chain_ids(&[]).is_empty());
}

proptest::proptest! {
    /// Every field of a document is hostile, annotations and platforms included.
    #[test]
    fn damaged_documents_never_panic(at in 0usize..600, byte: u8, cut in 0usize..600) {
        let mut bytes = manifest(OCI_CONFIG, LAYERS[1]).into_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        let _ = parse(&bytes, None, &Limits::default());
        let _ = parse(&bytes[..cut % length], Some(OCI_INDEX), &Limits::default());
        let _ = parse_config(&bytes, 1);
    }

    #[test]
    fn any_annotation_is_passed_over(value in "\\PC{0,60}") {
        let value = serde_json::to_string(&value).unwrap();
        let annotated = manifest(OCI_CONFIG, LAYERS[1])
            .replace("\"size\":20", &format!("\"size\":20,\"annotations\":{{\"containerd.io/x\":{value}}}"));
        proptest::prop_assert!(read(&annotated, None).is_ok());
    }
}
