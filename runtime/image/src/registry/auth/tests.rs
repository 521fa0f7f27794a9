use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn user() -> Credentials {
    Credentials::Basic {
        username: "u".to_owned(),
        password: "p".to_owned(),
    }
}

fn challenge(realm: &str) -> Challenge {
    parse_challenges(&format!("Bearer realm=\"{realm}\",service=\"s\"")).remove(0)
}

#[test]
fn challenges_parse() {
    let header = r#"Basic realm="a \"quoted\" realm", Bearer realm="https://t/x?a=b,c", service=reg ,scope="repository:a:pull,push",error="invalid_token""#;
    let challenges = parse_challenges(header);
    assert_eq!(challenges.len(), 2);
    assert_eq!(challenges[0].scheme, "basic");
    assert_eq!(challenges[0].parameters["realm"], "a \"quoted\" realm");
    assert_eq!(challenges[1].parameters["realm"], "https://t/x?a=b,c");
    assert_eq!(challenges[1].parameters["service"], "reg");
    assert_eq!(challenges[1].parameters["scope"], "repository:a:pull,push");
    for bad in [
        "",
        ",,,",
        "=x",
        "Bearer realm=\"unclosed",
        &"x".repeat(9000),
    ] {
        assert!(
            parse_challenges(bad)
                .iter()
                .all(|c| c.parameters.is_empty()),
            "{bad}"
        );
    }
}

#[test]
fn credentials_reach_only_the_registrys_own_token_service() {
    for (registry, realm, expected) in [
        (
            "https://registry-1.docker.io/v2",
            "https://auth.docker.io/token",
            true,
        ),
        (
            "https://registry.gitlab.com/v2",
            "https://gitlab.com/jwt/auth",
            true,
        ),
        ("https://ghcr.io/v2", "https://ghcr.io/token", true),
        (
            "https://r.example:5000/v2",
            "https://r.example:5001/token",
            true,
        ),
        (
            "http://127.0.0.1:5000/v2",
            "http://127.0.0.1:5001/token",
            true,
        ),
        ("https://quay.io/v2", "https://evil.io/token", false),
        ("https://r.example.com/v2", "https://evil.com/token", false),
        (
            "https://r.example.com/v2",
            "https://evilexample.com/token",
            false,
        ),
        (
            "https://r.example.com/v2",
            "https://a.b.example.com/token",
            false,
        ),
        ("https://10.0.0.1/v2", "https://10.0.0.2/token", false),
    ] {
        let request = token_request(
            &url(registry),
            &challenge(realm),
            "repository:a:pull",
            Some(&user()),
        );
        assert_eq!(
            request.unwrap().authorization.is_some(),
            expected,
            "{registry} {realm}"
        );
    }
}

#[test]
fn dangerous_realms_are_refused() {
    for (registry, realm) in [
        ("https://r.example.com/v2", "http://r.example.com/token"),
        (
            "https://r.example.com/v2",
            "https://169.254.169.254/latest/meta-data",
        ),
        (
            "http://r.example.com/v2",
            "http://169.254.169.254/latest/meta-data",
        ),
        ("http://r.example.com/v2", "http://[fe80::1]/"),
        (
            "http://r.example.com/v2",
            "http://[::ffff:169.254.169.254]/",
        ),
        ("http://r.example.com/v2", "http://[fd00:ec2::254]/"),
        ("http://127.0.0.1:5000/v2", "http://169.254.169.254/"),
        ("http://r.example.com/v2", "http://0.0.0.0/"),
        ("https://r.example.com/v2", "https://127.0.0.1/token"),
        ("https://r.example.com/v2", "https://localhost/token"),
        ("https://r.example.com/v2", "file:///etc/passwd"),
        ("https://r.example.com/v2", "unix:/run/x.sock"),
        ("https://r.example.com/v2", "token"),
        (
            "https://r.example.com/v2",
            "https://u:p@r.example.com/token",
        ),
        // The URL standard reads this as 169.254.169.254.
        ("http://r.example.com/v2", "http://2852039166/"),
    ] {
        let request = token_request(&url(registry), &challenge(realm), "s", Some(&user()));
        assert!(request.is_err(), "{registry} {realm}");
    }
}

#[test]
fn identity_tokens_are_posted() {
    let identity = Credentials::IdentityToken("r&t".to_owned());
    let realm = challenge("https://r.example.com/token");
    let request = token_request(
        &url("https://r.example.com/v2"),
        &realm,
        "x",
        Some(&identity),
    )
    .unwrap();
    assert!(request.form.unwrap().contains("refresh_token=r%26t"));
    assert_eq!(request.url.query(), None);
}

#[test]
fn token_answers_are_checked() {
    assert!(parse_token(br#"{"token":"a"}"#).is_some());
    assert!(parse_token(br#"{"token":"","access_token":"b"}"#).is_some());
    assert!(parse_token(br#"{"token":"a\r\nx: y"}"#).is_none());
    assert!(parse_token(b"{}").is_none());
    assert!(parse_token(format!("{{\"token\":\"{}\"}}", "x".repeat(70_000)).as_bytes()).is_none());
}

proptest::proptest! {
    #[test]
    fn challenges_never_panic(header in "\\PC{0,200}") {
        let _ = parse_challenges(&header);
    }
}
