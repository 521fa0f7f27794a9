//! Authorisation: challenges, token services, and whom credentials may reach.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::Deserialize;
use url::{Host, Url};

use crate::config::Credentials;

/// Bytes of one `WWW-Authenticate` header that are read.
const MAX_CHALLENGE: usize = 8 << 10;
/// Bytes of a token.
const MAX_TOKEN: usize = 64 << 10;
/// Amazon's metadata service, the one well-known address outside the link-local ranges.
const METADATA_V6: &str = "fd00:ec2::254";

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// Lower-case scheme.
    pub scheme: String,
    /// Parameters by lower-case name.
    pub parameters: BTreeMap<String, String>,
}

/// A request to a token service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenRequest {
    pub url: Url,
    /// `Authorization`, if the credentials may reach this service.
    pub authorization: Option<HeaderValue>,
    /// The body of a POST; `None` means GET.
    pub form: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Reads all challenges of one header; what does not parse ends the list.
pub(crate) fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    if header.len() > MAX_CHALLENGE {
        return challenges;
    }
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else {
            return challenges;
        };
        let after_space = after.trim_start_matches([' ', '\t']);
        if let Some(value) = after_space.strip_prefix('=') {
            let value = value.trim_start_matches([' ', '\t']);
            let (Some((value, after)), Some(challenge)) = (value_of(value), challenges.last_mut())
            else {
                return challenges;
            };
            challenge
                .parameters
                .insert(word.to_ascii_lowercase(), value);
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: BTreeMap::new(),
            });
            rest = after;
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// The `Authorization` header of Basic credentials.
pub(crate) fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(&format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
}

/// The `Authorization` header of a token.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What to ask the token service for. `registry` is the host that sent the challenge.
pub(crate) fn token_request(
    registry: &Url,
    challenge: &Challenge,
    scope: &str,
    credentials: Option<&Credentials>,
) -> Result<TokenRequest, &'static str> {
    let realm = challenge
        .parameters
        .get("realm")
        .ok_or("the challenge names no realm")?;
    let mut url = Url::parse(realm).map_err(|_| "the token realm is not a URL")?;
    check_target(registry, &url)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the token realm carries credentials");
    }
    let service = challenge.parameters.get("service").map(String::as_str);
    let trusted = credentials.filter(|_| may_have_credentials(registry, &url));
    if let Some(Credentials::IdentityToken(refresh)) = trusted {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        form.append_pair("client_id", "berth");
        form.append_pair("service", service.unwrap_or(""));
        form.append_pair("scope", scope);
        form.append_pair("refresh_token", refresh);
        return Ok(TokenRequest {
            url,
            authorization: None,
            form: Some(form.finish()),
        });
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", scope);
    }
    let authorization = match trusted {
        Some(Credentials::Basic { username, password }) => basic(username, password),
        _ => None,
    };
    Ok(TokenRequest {
        url,
        authorization,
        form: None,
    })
}

/// The token in a token service's answer.
pub(crate) fn parse_token(body: &[u8]) -> Option<HeaderValue> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    let given = |token: Option<String>| token.filter(|token| !token.is_empty());
    let token = given(answer.token).or_else(|| given(answer.access_token))?;
    if token.len() > MAX_TOKEN {
        None
    } else {
        bearer(&token)
    }
}

/// Whether a registry's challenge or redirect may lead to `target`: not from HTTPS to plain HTTP,
/// and not to this machine or its link unless the registry is there itself (SSRF).
pub(crate) fn check_target(registry: &Url, target: &Url) -> Result<(), &'static str> {
    match (registry.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => {}
        ("https", "http") => return Err("it leads from https to http"),
        _ => return Err("it leads to neither http nor https"),
    }
    match target.host() {
        None => Err("it names no host"),
        Some(host) if is_link_local(&host) => Err("it leads to a link-local address"),
        Some(host)
            if is_loopback(&host) && !registry.host().is_some_and(|own| is_loopback(&own)) =>
        {
            Err("it leads to a loopback address")
        }
        Some(_) => Ok(()),
    }
}

/// Whether an address is only good for this link, where cloud metadata services answer.
pub(crate) fn is_link_local_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || METADATA_V6.parse::<IpAddr>() == Ok(IpAddr::V6(v6))
        }
    }
}

fn address(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(v4) => Some(IpAddr::V4(*v4)),
        Host::Ipv6(v6) => Some(IpAddr::V6(*v6)),
    }
}

fn is_link_local(host: &Host<&str>) -> bool {
    address(host).is_some_and(is_link_local_address)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        address_host => address(address_host).is_some_and(|a| a.to_canonical().is_loopback()),
    }
}

/// Whether a token service is the registry's own: the same host, a domain the registry lies in
/// (gitlab.com for registry.gitlab.com), or a sibling (auth.docker.io for registry-1.docker.io).
fn may_have_credentials(registry: &Url, service: &Url) -> bool {
    let (Some(registry_host), Some(service_host)) = (registry.host(), service.host()) else {
        return false;
    };
    if registry.scheme() == "https" && service.scheme() != "https" {
        return false;
    }
    if registry_host == service_host {
        return true;
    }
    let (Host::Domain(registry), Host::Domain(service)) = (registry_host, service_host) else {
        return false;
    };
    // A parent of one label (`com`) is nobody's domain.
    let Some((_, parent)) = registry.split_once('.') else {
        return false;
    };
    parent.contains('.')
        && (service == parent
            || service
                .strip_suffix(parent)
                .is_some_and(|rest| rest.ends_with('.') && !rest[..rest.len() - 1].contains('.')))
}

#[cfg(test)]
mod tests;
