//! Registry credentials from `imagePullSecrets` (`kubernetes.io/dockerconfigjson` and
//! `kubernetes.io/dockercfg`).

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_proto::cri::AuthConfig;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde::Deserialize;

use crate::objects::{ObjectError, Objects};
use crate::pod;

#[derive(Debug, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

/// Credentials of the pod that fit `image`, the most specific first.
///
/// # Errors
/// When the API server cannot be asked; a secret that does not exist is passed over.
pub async fn credentials(
    pod: &Pod,
    image: &str,
    objects: &Objects,
) -> Result<Vec<AuthConfig>, ObjectError> {
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    let references = pod
        .spec
        .as_ref()
        .and_then(|s| s.image_pull_secrets.as_ref());
    for reference in references.into_iter().flatten() {
        let secret = objects.secret(pod::namespace(pod), &reference.name).await?;
        let entries = secret.as_ref().map(entries).unwrap_or_default();
        found.extend(entries.into_iter().filter_map(|(key, entry)| {
            let rank = fits(&key, image)?;
            Some((rank, auth(&key, entry)))
        }));
    }
    found.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    Ok(found.into_iter().map(|(_, auth)| auth).collect())
}

fn entries(secret: &Secret) -> HashMap<String, Entry> {
    let data = secret.data.as_ref();
    let get = |key: &str| data.and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    if let Some(json) = get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(json)
            .map(|c| c.auths)
            .unwrap_or_default();
    }
    get(".dockercfg")
        .and_then(|json| serde_json::from_slice(json).ok())
        .unwrap_or_default()
}

/// How much of the image's name a credential's key covers; `None` when it does not fit.
fn fits(key: &str, image: &str) -> Option<usize> {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    let key = if key == "index.docker.io" {
        "docker.io"
    } else {
        key
    };
    let image = canonical(image);
    let rest = image.strip_prefix(key)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(key.len())
}

/// The image's name with its registry spelt out.
fn canonical(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

fn auth(server: &str, entry: Entry) -> AuthConfig {
    let (mut username, mut password) = (entry.username, entry.password);
    if username.is_empty()
        && let Ok(decoded) = STANDARD.decode(entry.auth.trim())
        && let Ok(text) = String::from_utf8(decoded)
        && let Some((user, secret)) = text.split_once(':')
    {
        user.clone_into(&mut username);
        secret.trim_end_matches('\0').clone_into(&mut password);
    }
    AuthConfig {
        username,
        password,
        server_address: server.to_owned(),
        identity_token: entry.identity_token,
        registry_token: entry.registry_token,
        ..AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_their_registry_and_path() {
        for (key, image, fit) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "me/app:1", true),
            (
                "registry.example:5000",
                "registry.example:5000/a/b@sha256:0",
                true,
            ),
            ("registry.example:5000/a", "registry.example:5000/a/b", true),
            (
                "registry.example:5000/a",
                "registry.example:5000/ab/b",
                false,
            ),
            ("registry.example", "registry.example.evil/a", false),
            ("localhost", "localhost/a", true),
        ] {
            assert_eq!(fits(key, image).is_some(), fit, "{key} {image}");
        }
    }

    #[test]
    fn both_forms_of_a_password_are_read() {
        let secret: Secret = serde_json::from_value(serde_json::json!({"data": {
            ".dockerconfigjson": STANDARD.encode(
                r#"{"auths": {"r.example": {"auth": "dTpwOnE="}}}"#)}}))
        .unwrap();
        let entry = entries(&secret).remove("r.example").unwrap();
        let auth = auth("r.example", entry);
        assert_eq!(
            (auth.username.as_str(), auth.password.as_str()),
            ("u", "p:q")
        );
    }
}
