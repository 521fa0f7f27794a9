//! The kubeconfig file format (`v1`, kind `Config`), with all data inline.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::KeyAndCert;

/// One cluster, one user, one context, as YAML.
pub(super) fn render(server: &str, ca_pem: &str, user: &str, pair: &KeyAndCert) -> String {
    let context = format!("{user}@berth");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{
            "name": "berth",
            "cluster": {
                "certificate-authority-data": STANDARD.encode(ca_pem),
                "server": server,
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&pair.cert_pem),
                "client-key-data": STANDARD.encode(&pair.key_pem),
            },
        }],
        "contexts": [{
            "name": context,
            "context": { "cluster": "berth", "user": user },
        }],
        "current-context": context,
    });
    serde_yaml_ng::to_string(&config).unwrap_or_else(|_| config.to_string())
}
