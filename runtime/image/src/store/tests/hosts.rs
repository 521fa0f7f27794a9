//! Whom a pull asks, and what it tells them.

use super::two_layers;
use crate::Credentials;
use crate::testing::image::image;
use crate::testing::registry::{Auth, Behaviour, Registry, ca_path};
use crate::testing::{TestStore, is_root};

fn credentials() -> Credentials {
    Credentials::Basic {
        username: "user".to_owned(),
        password: "secret".to_owned(),
    }
}

#[tokio::test]
async fn root_a_token_registry_over_tls_serves_those_it_should() {
    if !is_root() {
        return;
    }
    let auth = Auth::Token {
        realm: None,
        needs_user: true,
    };
    let registry = Registry::start(Behaviour {
        auth,
        tls: true,
        ..Behaviour::default()
    })
    .await;
    registry.push("v1", &two_layers());
    let name = format!("{}/app:v1", registry.host());
    let server = format!("server = \"{}\"\n", registry.url());
    // A CA of hosts.toml, of the configuration, or no verification at all.
    for variant in 0..3 {
        let ca = ca_path(&registry);
        let store = TestStore::with(|config| {
            if variant == 0 {
                config.extra_ca.push(ca.clone());
            }
        });
        let line = match variant {
            0 => String::new(),
            1 => format!("ca = \"{}\"", ca.display()),
            _ => "skip_verify = true".to_owned(),
        };
        store.hosts(&registry.host(), &format!("{server}{line}"));
        store.pull_as(&name, Some(&credentials())).await.unwrap();
    }
    let store = TestStore::with(|config| config.extra_ca.push(ca_path(&registry)));
    store.hosts(&registry.host(), &server);
    let error = store.pull(&name).await.unwrap_err();
    assert!(
        error.to_string().contains("incorrect username or password"),
        "{error}"
    );
    assert!(!error.is_retryable());
    // Unknown authority, and plain HTTP to a TLS port.
    let store = TestStore::new();
    assert!(store.pull(&name).await.is_err());
    store.hosts(&registry.host(), &server);
    let error = store
        .pull_as(&name, Some(&credentials()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn credentials_do_not_leave_their_host() {
    let storage = Registry::start(Behaviour::default()).await;
    let registry = Registry::start(Behaviour {
        auth: Auth::Basic,
        blob_redirect: Some(storage.url()),
        ..Behaviour::default()
    })
    .await;
    let mirror = Registry::start(Behaviour {
        auth: Auth::Basic,
        ..Behaviour::default()
    })
    .await;
    let test_image = image(&[]);
    registry.push("v1", &test_image);
    storage.push("v1", &test_image);
    let store = TestStore::new();
    store.hosts(
        &registry.host(),
        &format!(
            "server = \"{}\"\n[host.\"{}\"]\n[host.\"{}\".header]\nx-key = \"k\"",
            registry.url(),
            mirror.url(),
            mirror.url()
        ),
    );
    let name = format!("{}/app:v1", registry.host());
    let error = store.pull(&name).await.unwrap_err();
    assert!(
        error.to_string().contains("authentication required"),
        "{error}"
    );
    store.pull_as(&name, Some(&credentials())).await.unwrap();
    assert!(storage.blob_requests() == 0 && !storage.seen().is_empty());
    for seen in storage.seen().iter().chain(&mirror.seen()) {
        assert_eq!(seen.authorization(), None, "{seen:?}");
    }
    assert!(
        mirror
            .seen()
            .iter()
            .all(|seen| seen.headers.contains_key("x-key"))
    );
    assert!(
        mirror
            .seen()
            .iter()
            .all(|seen| seen.target.contains("ns=127.0.0.1"))
    );
    assert!(
        storage
            .seen()
            .iter()
            .all(|seen| !seen.headers.contains_key("x-key"))
    );
}

#[tokio::test]
async fn dangerous_challenges_and_redirects_are_refused() {
    let evil = Registry::start(Behaviour::default()).await;
    for realm in [
        "http://169.254.169.254/token",
        "http://[fe80::1]/token",
        "file:///etc/shadow",
    ] {
        let auth = Auth::Token {
            realm: Some(realm.to_owned()),
            needs_user: false,
        };
        let registry = Registry::start(Behaviour {
            auth,
            ..Behaviour::default()
        })
        .await;
        let name = format!("{}/app:v1", registry.host());
        let error = TestStore::new()
            .pull_as(&name, Some(&credentials()))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("token service refused"),
            "{realm}: {error}"
        );
    }
    // Another host's token service gets no credentials.
    let realm = evil.url().replace("127.0.0.1", "127.0.0.2") + "/token";
    let auth = Auth::Token {
        realm: Some(realm),
        needs_user: false,
    };
    let registry = Registry::start(Behaviour {
        auth,
        ..Behaviour::default()
    })
    .await;
    let name = format!("{}/app:v1", registry.host());
    assert!(
        TestStore::new()
            .pull_as(&name, Some(&credentials()))
            .await
            .is_err()
    );
    assert!(
        evil.seen()
            .iter()
            .all(|seen| seen.authorization().is_none())
    );
    let origin = Some("http://169.254.169.254".to_owned());
    let registry = Registry::start(Behaviour {
        blob_redirect: origin,
        ..Behaviour::default()
    })
    .await;
    registry.push("v1", &image(&[]));
    let error = TestStore::new()
        .pull(&format!("{}/a:v1", registry.host()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("link-local"), "{error}");
}

#[tokio::test]
async fn mirrors_are_tried_first_and_failures_fall_through() {
    let mirror = Registry::start(Behaviour::default()).await;
    let registry = Registry::start(Behaviour::default()).await;
    let test_image = image(&[]);
    registry.push("v1", &test_image);
    let store = TestStore::new();
    let hosts = format!(
        "server = \"{}\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"{}\"]",
        registry.url(),
        mirror.url()
    );
    store.hosts("example.test", &hosts);
    store.pull("example.test/app:v1").await.unwrap();
    assert!(!mirror.seen().is_empty());
    let error = store.pull("example.test/app:v9").await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("before that"),
        "{error}"
    );
    mirror.push("v2", &test_image);
    let before = registry.seen().len();
    store.pull("example.test/app:v2").await.unwrap();
    assert_eq!(registry.seen().len(), before);
}
