//! Image names: parsing, normalisation, the familiar and the canonical form.
//!
//! Grammar: the distribution project's reference grammar; `nginx` means
//! `docker.io/library/nginx:latest`.

use std::fmt;

use crate::digest::{Digest, DigestError};

/// Bytes of `domain/path`, the distribution grammar's bound.
const MAX_NAME: usize = 255;
/// Bytes of a tag.
const MAX_TAG: usize = 128;
const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";

/// A normalised image name.
///
/// Invariant: at least one of `tag` and `digest` is present; every part matches the grammar, so
/// that the parts may stand in URLs unescaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing stands before the tag or digest.
    #[error("image name is empty")]
    Empty,
    /// `domain/path` is longer than 255 bytes.
    #[error("image name is longer than {MAX_NAME} bytes")]
    TooLong,
    /// The registry host is malformed.
    #[error("registry host `{0}` is malformed")]
    Domain(String),
    /// The repository has upper-case letters.
    #[error("repository name `{0}` must be lower-case")]
    UpperCase(String),
    /// The repository path is malformed.
    #[error("repository name `{0}` is malformed")]
    Path(String),
    /// The tag is malformed.
    #[error("tag `{0}` is malformed")]
    Tag(String),
    /// The part after `@` is not a digest.
    #[error("digest in the image name is malformed: {0}")]
    Digest(DigestError),
    /// 64 hexadecimal digits would be mistaken for an image id.
    #[error("repository name cannot be 64 hexadecimal digits")]
    LooksLikeId,
}

impl Reference {
    /// Parses and normalises an image name as typed by a user.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = Digest::parse(digest).map_err(ReferenceError::Digest)?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = split_tag(rest);
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if name.len() == 64
            && name
                .bytes()
                .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        {
            return Err(ReferenceError::LooksLikeId);
        }
        let (domain, path) = split_domain(name);
        check_domain(&domain)?;
        check_path(&path)?;
        if domain.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        let tag = match tag {
            Some(tag) => Some(checked_tag(tag)?),
            None if digest.is_none() => Some("latest".to_owned()),
            None => None,
        };
        Ok(Self {
            domain,
            path,
            tag,
            digest,
        })
    }

    /// The registry's name, with its port if one was given: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if the name has one. Without a digest there always is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the name pins one. It decides what is pulled; the tag then is decoration.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/nginx`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What the registry is asked for under `/v2/<path>/manifests/`: the digest, else the tag.
    pub fn manifest_name(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// The name an image is stored under: a digest wins over a tag, as in Kubernetes.
    pub fn canonical(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.repository()),
            None => format!("{}:{}", self.repository(), self.manifest_name()),
        }
    }

    /// The short form that people type: `nginx:latest`, `bitnami/redis:7`.
    pub fn familiar(&self) -> String {
        let canonical = self.canonical();
        match canonical.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => canonical,
        }
    }

    /// The same repository at `digest`.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Splits `name:tag`; a colon before the last slash belongs to a port.
fn split_tag(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    }
}

fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if is_domain(first) => (first, rest),
        _ => (DEFAULT_DOMAIN, name),
    };
    if domain != DEFAULT_DOMAIN && domain != LEGACY_DEFAULT_DOMAIN {
        return (domain.to_owned(), path.to_owned());
    }
    let path = if path.contains('/') {
        path.to_owned()
    } else {
        format!("library/{path}")
    };
    (DEFAULT_DOMAIN.to_owned(), path)
}

/// The first component names a registry if it could not be a repository of the default one.
fn is_domain(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), ReferenceError> {
    let malformed = || ReferenceError::Domain(domain.to_owned());
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or_else(malformed)?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| malformed())?;
            let port = match after.strip_prefix(':') {
                Some(port) => Some(port),
                None if after.is_empty() => None,
                None => return Err(malformed()),
            };
            (None, port)
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    if let Some(port) = port {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        if !digits || port.parse::<u16>().is_err() {
            return Err(malformed());
        }
    }
    match host {
        Some(host) if !host.split('.').all(is_domain_label) => Err(malformed()),
        _ => Ok(()),
    }
}

fn is_domain_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty()
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn check_path(path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase(path.to_owned()));
    }
    if path.is_empty() || !path.split('/').all(is_path_component) {
        return Err(ReferenceError::Path(path.to_owned()));
    }
    Ok(())
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = [bytes.first(), bytes.last()];
    if !edges.into_iter().all(|edge| edge.is_some_and(alphanumeric)) {
        return false;
    }
    bytes
        .split(alphanumeric)
        .filter(|separator| !separator.is_empty())
        .all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn checked_tag(tag: &str) -> Result<String, ReferenceError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let first = tag.bytes().next().is_some_and(word);
    let rest = tag.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if first && rest && tag.len() <= MAX_TAG {
        Ok(tag.to_owned())
    } else {
        Err(ReferenceError::Tag(tag.to_owned()))
    }
}

#[cfg(test)]
mod tests;
