use super::*;

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn names_are_normalised() {
    let hex = "a".repeat(64);
    let pinned = format!("nginx:1.25@sha256:{hex}");
    let pinned_canonical = format!("docker.io/library/nginx@sha256:{hex}");
    let table = [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
        (
            "bitnami/redis",
            "docker.io/bitnami/redis:latest",
            "bitnami/redis:latest",
        ),
        (
            "docker.io/nginx",
            "docker.io/library/nginx:latest",
            "nginx:latest",
        ),
        ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
        (
            "localhost/app",
            "localhost/app:latest",
            "localhost/app:latest",
        ),
        (
            "localhost:5000/app:v1",
            "localhost:5000/app:v1",
            "localhost:5000/app:v1",
        ),
        (
            "127.0.0.1:5000/a/b",
            "127.0.0.1:5000/a/b:latest",
            "127.0.0.1:5000/a/b:latest",
        ),
        (
            "[::1]:5000/app",
            "[::1]:5000/app:latest",
            "[::1]:5000/app:latest",
        ),
        (
            "registry.k8s.io/pause:3.10",
            "registry.k8s.io/pause:3.10",
            "registry.k8s.io/pause:3.10",
        ),
        ("Host/app", "Host/app:latest", "Host/app:latest"),
        (
            "x/a__b.c---d",
            "docker.io/x/a__b.c---d:latest",
            "x/a__b.c---d:latest",
        ),
        (
            &pinned,
            &pinned_canonical,
            pinned_canonical.strip_prefix("docker.io/library/").unwrap(),
        ),
    ];
    for (typed, canonical, familiar) in table {
        let reference = Reference::parse(typed).unwrap();
        assert_eq!(reference.canonical(), canonical, "{typed}");
        assert_eq!(reference.familiar(), familiar, "{typed}");
        let again = Reference::parse(canonical).unwrap();
        assert_eq!(again.canonical(), canonical);
        assert_eq!(Reference::parse(familiar).unwrap().canonical(), canonical);
    }
}

#[test]
fn malformed_names_are_refused() {
    let id = "b".repeat(64);
    let long = format!("docker.io/{}", "a".repeat(250));
    let long_tag = format!("nginx:{}", "t".repeat(129));
    for bad in [
        "",
        ":tag",
        "@sha256:00",
        "Nginx",
        "docker.io/Library/nginx",
        "nginx:",
        "nginx:.x",
        "nginx:a b",
        "a//b",
        "/a",
        "a/",
        "a/../b",
        "a/./b",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "host:port/a",
        "host:99999/a",
        "host:/a",
        "-h.io/a",
        "h..io/a",
        "[::1/a",
        "[zz]:1/a",
        "nginx@sha256:zz",
        "nginx@md5:d41d8cd98f00b204e9800998ecf8427e",
        "a@b@c",
        "nginx\n",
        "user:pass@host/a",
        &id,
        &long,
        &long_tag,
    ] {
        assert!(Reference::parse(bad).is_err(), "{bad:?}");
    }
}

proptest::proptest! {
    #[test]
    fn parsing_never_panics_and_is_stable(text in "\\PC{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            let canonical = reference.canonical();
            proptest::prop_assert_eq!(Reference::parse(&canonical).unwrap().canonical(), canonical);
        }
    }
}
