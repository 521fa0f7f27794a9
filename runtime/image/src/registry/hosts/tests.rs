#![expect(clippy::disallowed_methods, reason = "the test writes configuration")]

use super::*;

fn bases(text: &str, domain: &str) -> Vec<String> {
    let endpoints = parse(text, Path::new("/certs"), domain).unwrap();
    endpoints
        .iter()
        .map(|endpoint| endpoint.base.to_string())
        .collect()
}

fn default_base(domain: &str) -> String {
    let endpoints = endpoints(Path::new("/nonexistent-hosts-dir"), domain).unwrap();
    assert!(endpoints[0].is_server);
    endpoints[0].base.to_string()
}

#[test]
fn defaults_follow_the_name() {
    for (domain, base) in [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("registry.k8s.io", "https://registry.k8s.io/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("127.8.9.1", "http://127.8.9.1/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("localhost.example.com", "https://localhost.example.com/v2"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
    ] {
        assert_eq!(default_base(domain), base);
    }
}

#[test]
fn mirrors_keep_the_files_order_and_the_server_is_last() {
    let text = r#"
        server = "https://up.example"
        [host."https://z.example"]
          capabilities = ["pull"]
        [host."http://a.example:8080/v2/proxy"]
          capabilities = ["pull", "resolve"]
          override_path = true
          skip_verify = true
          ca = "ca.pem"
          client = [["c.pem", "k.pem"]]
          dial_timeout = "500ms"
          [host."http://a.example:8080/v2/proxy".header]
            x-one = "1"
            x-two = ["2", "3"]
        [host."mirror:5000/base"]
    "#;
    assert_eq!(
        bases(text, "docker.io"),
        [
            "https://z.example/v2",
            "http://a.example:8080/v2/proxy",
            "https://mirror:5000/base/v2",
            "https://up.example/v2",
        ]
    );
    let endpoints = parse(text, Path::new("/certs"), "docker.io").unwrap();
    assert!(endpoints[0].can_pull && !endpoints[0].can_resolve);
    let proxy = &endpoints[1];
    assert!(proxy.tls.skip_verify && !proxy.is_server);
    assert_eq!(proxy.tls.ca, [PathBuf::from("/certs/ca.pem")]);
    assert_eq!(
        proxy.tls.client,
        [("/certs/c.pem".into(), "/certs/k.pem".into())]
    );
    assert_eq!(proxy.headers.get_all("x-two").iter().count(), 2);
    assert_eq!(proxy.dial_timeout, Duration::from_millis(500));
    assert_eq!(proxy.namespace.as_deref(), Some("docker.io"));
    assert!(endpoints[3].is_server);
}

#[test]
fn the_hub_is_no_mirror_of_itself() {
    let endpoints = parse("", Path::new("/"), "docker.io").unwrap();
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].namespace, None);
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in [
        "servre = \"https://x\"",
        "server = \"ftp://x\"",
        "server = \"https://user:secret@x\"",
        "[host.\"https://m\"]\n capabilities = [\"pul\"]",
        "[host.\"https://m\"]\n rewrite = 1",
        "[host.\"https://m\"]\n dial_timeout = \"soon\"",
        "[host.\"https://m\".header]\n \"bad header\" = \"x\"",
        "not toml",
    ] {
        assert!(parse(text, Path::new("/"), "docker.io").is_err(), "{text}");
    }
}

#[test]
fn the_first_existing_directory_decides() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("hosts.toml"), text).unwrap();
    };
    write("_default", "[host.\"https://cache.example\"]");
    write("r.example_5000_", "server = \"http://r.example:5000\"");
    let first = |domain| endpoints(dir.path(), domain).unwrap()[0].base.to_string();
    assert_eq!(first("quay.io"), "https://cache.example/v2");
    assert_eq!(first("r.example:5000"), "http://r.example:5000/v2");
    std::fs::create_dir_all(dir.path().join("c.example")).unwrap();
    std::fs::write(dir.path().join("c.example/ca.crt"), "").unwrap();
    let endpoint = endpoints(dir.path(), "c.example").unwrap().remove(0);
    assert_eq!(endpoint.tls.ca, [dir.path().join("c.example/ca.crt")]);
}

proptest::proptest! {
    #[test]
    fn no_file_panics(text in "[a-z\\[\\]\".:/= \n]{0,120}") {
        let _ = parse(&text, Path::new("/"), "docker.io");
    }
}
