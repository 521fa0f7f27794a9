//! Images as the CRI tells them.

use berth_image::{Credentials, Image, Principal, UserSpec};
use berth_proto::cri;

/// The CRI form of an image.
pub fn to_cri(image: &Image) -> cri::Image {
    let (uid, username) = user(image.user.as_deref());
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid,
        username,
        spec: None,
        pinned: image.pinned,
    }
}

/// `USER` of the image as a number or a name; root when it has none.
fn user(text: Option<&str>) -> (Option<cri::Int64Value>, String) {
    match UserSpec::parse(text.unwrap_or_default()).map(|spec| spec.user) {
        Ok(Principal::Id(uid)) => (
            Some(cri::Int64Value {
                value: i64::from(uid),
            }),
            String::new(),
        ),
        Ok(Principal::Name(name)) => (None, name),
        Err(_) => (None, text.unwrap_or_default().to_owned()),
    }
}

/// The credentials of a request, in the order the CRI's fields rank; None is anonymous.
pub fn credentials(auth: Option<&cri::AuthConfig>) -> Result<Option<Credentials>, AuthError> {
    let Some(auth) = auth else { return Ok(None) };
    if !auth.username.is_empty() {
        return Ok(Some(Credentials::Basic {
            username: auth.username.clone(),
            password: auth.password.clone(),
        }));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some(Credentials::IdentityToken(
            auth.identity_token.clone(),
        )));
    }
    if !auth.registry_token.is_empty() {
        return Ok(Some(Credentials::Bearer(auth.registry_token.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let (username, password) = basic(&auth.auth).ok_or(AuthError)?;
    Ok(Some(Credentials::Basic { username, password }))
}

/// `auth.auth` is not `base64(user:password)`. Says no more: it is a secret.
#[derive(Debug, thiserror::Error)]
#[error("auth.auth: is not base64 of user:password")]
pub struct AuthError;

fn basic(encoded: &str) -> Option<(String, String)> {
    use base64::Engine;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        let table = [
            (None, Some(0), ""),
            (Some("1002"), Some(1002), ""),
            (Some("www-data"), None, "www-data"),
            (Some("1003:1004"), Some(1003), ""),
            (Some("www-data:1004"), None, "www-data"),
        ];
        for (text, uid, name) in table {
            let expected = (uid.map(|value| cri::Int64Value { value }), name.to_owned());
            assert_eq!(user(text), expected, "{text:?}");
        }
    }

    #[test]
    fn credentials_come_from_the_field_that_is_set() {
        let auth = |auth: cri::AuthConfig| credentials(Some(&auth));
        assert_eq!(credentials(None).unwrap(), None);
        let encoded = cri::AuthConfig {
            auth: "dTpwOnc=".to_owned(),
            ..Default::default()
        };
        let basic = Credentials::Basic {
            username: "u".to_owned(),
            password: "p:w".to_owned(),
        };
        assert_eq!(auth(encoded).unwrap(), Some(basic));
        let token = cri::AuthConfig {
            identity_token: "t".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            auth(token).unwrap(),
            Some(Credentials::IdentityToken("t".to_owned()))
        );
        let broken = cri::AuthConfig {
            auth: "%".to_owned(),
            ..Default::default()
        };
        assert!(auth(broken).is_err());
    }
}
