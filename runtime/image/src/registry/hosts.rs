//! Which hosts serve a registry: containerd's `certs.d` format.
//!
//! For `host:port` the directories `host_port_`, `host:port` and `_default` below the hosts
//! directory are tried in this order; the first that exists decides. Its `hosts.toml` lists
//! mirrors, tried in the order of the file, and the `server` behind them. A directory without
//! `hosts.toml` holds certificates: `*.crt` authorities, `*.cert` with `*.key` client pairs.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

/// Docker Hub's API does not live on the name its images carry.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// One host that may be asked.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The API's root, ending in `/v2` unless overridden; without a trailing slash.
    pub base: Url,
    pub can_pull: bool,
    pub can_resolve: bool,
    pub tls: Tls,
    /// Sent with every request to this origin.
    pub headers: HeaderMap,
    pub dial_timeout: Duration,
    /// Whether this is the registry itself: the only one that credentials are for.
    pub is_server: bool,
    /// The registry this host mirrors, sent as `ns`.
    pub namespace: Option<String>,
}

/// How a host is authenticated, and how we authenticate to it, by TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// PEM files of authorities trusted besides the system's.
    pub ca: Vec<PathBuf>,
    /// PEM files with our certificate and its key; one file may hold both.
    pub client: Vec<(PathBuf, PathBuf)>,
    pub skip_verify: bool,
}

/// Why the hosts of a registry cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// A file is not in the format.
    #[error("`{path}` is not a hosts.toml: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: toml::Table,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Client>,
    skip_verify: Option<bool>,
    #[serde(default)]
    header: toml::Table,
    override_path: Option<bool>,
    dial_timeout: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Client {
    One(String),
    Many(Vec<String>),
    Pairs(Vec<(String, String)>),
}

/// The hosts to ask for images of `domain`, in order, the registry itself last.
pub(crate) fn endpoints(hosts_dir: &Path, domain: &str) -> Result<Vec<Endpoint>, HostsError> {
    for dir in candidate_dirs(hosts_dir, domain) {
        match std::fs::metadata(&dir) {
            Ok(found) if found.is_dir() => return from_dir(&dir, domain),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(HostsError::Read { path: dir, cause }),
        }
    }
    let base = server_url(domain, None).map_err(|reason| format_error(hosts_dir, reason))?;
    Ok(vec![Endpoint::new(base, domain, Tls::default())])
}

fn candidate_dirs(hosts_dir: &Path, domain: &str) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some((host, port)) = domain.rsplit_once(':') {
        dirs.push(hosts_dir.join(format!("{host}_{port}_")));
    }
    dirs.push(hosts_dir.join(domain));
    dirs.push(hosts_dir.join("_default"));
    dirs
}

fn from_dir(dir: &Path, domain: &str) -> Result<Vec<Endpoint>, HostsError> {
    let path = dir.join("hosts.toml");
    #[expect(
        clippy::disallowed_methods,
        reason = "the operator's configuration, not a rootfs"
    )]
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text, dir, domain).map_err(|reason| format_error(&path, reason)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let tls = certificates(dir).map_err(|cause| HostsError::Read { path, cause })?;
            let base = server_url(domain, None).map_err(|reason| format_error(dir, reason))?;
            Ok(vec![Endpoint::new(base, domain, tls)])
        }
        Err(cause) => Err(HostsError::Read { path, cause }),
    }
}

fn format_error(path: &Path, reason: String) -> HostsError {
    HostsError::Format {
        path: path.to_owned(),
        reason,
    }
}

/// Docker's older layout: certificates by file name.
fn certificates(dir: &Path) -> io::Result<Tls> {
    let mut tls = Tls::default();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => tls.client.push((path.clone(), path.with_extension("key"))),
            _ => {}
        }
    }
    Ok(tls)
}

fn parse(text: &str, dir: &Path, domain: &str) -> Result<Vec<Endpoint>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut endpoints = Vec::new();
    for (url, host) in &file.host {
        let host: Host = host
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| format!("host.\"{url}\": {}", error.message()))?;
        let mut endpoint = host.endpoint(url, dir, domain)?;
        endpoint.is_server = false;
        endpoints.push(endpoint);
    }
    let server = Host {
        capabilities: file.capabilities,
        ca: file.ca,
        client: file.client,
        skip_verify: file.skip_verify,
        header: file.header,
        override_path: file.override_path,
        dial_timeout: file.dial_timeout,
    };
    let url = match file.server {
        Some(url) => url,
        None => server_url(domain, None)?.to_string(),
    };
    endpoints.push(server.endpoint(&url, dir, domain)?);
    Ok(endpoints)
}

impl Host {
    fn endpoint(&self, url: &str, dir: &Path, domain: &str) -> Result<Endpoint, String> {
        let base = server_url(domain, Some((url, self.override_path.unwrap_or(false))))?;
        let tls = Tls {
            ca: self.ca.iter().flat_map(|ca| ca.paths(dir)).collect(),
            client: self
                .client
                .as_ref()
                .map(|client| client.pairs(dir))
                .unwrap_or_default(),
            skip_verify: self.skip_verify.unwrap_or(false),
        };
        let mut endpoint = Endpoint::new(base, domain, tls);
        if let Some(capabilities) = &self.capabilities {
            endpoint.can_pull = false;
            endpoint.can_resolve = false;
            for capability in capabilities {
                match capability.as_str() {
                    "pull" => endpoint.can_pull = true,
                    "resolve" => endpoint.can_resolve = true,
                    "push" => {}
                    other => return Err(format!("unknown capability `{other}`")),
                }
            }
        }
        endpoint.headers = headers(&self.header)?;
        if let Some(text) = &self.dial_timeout {
            endpoint.dial_timeout =
                duration(text).ok_or_else(|| format!("dial_timeout `{text}` is not a duration"))?;
        }
        Ok(endpoint)
    }
}

impl Endpoint {
    fn new(base: Url, domain: &str, tls: Tls) -> Self {
        let own = authority(&base);
        let mirrors = own != domain && (domain, own.as_str()) != DOCKER_HUB;
        Self {
            base,
            can_pull: true,
            can_resolve: true,
            tls,
            headers: HeaderMap::new(),
            dial_timeout: DEFAULT_DIAL_TIMEOUT,
            is_server: true,
            namespace: mirrors.then(|| domain.to_owned()),
        }
    }

    /// `host[:port]`, for messages.
    pub fn name(&self) -> String {
        authority(&self.base)
    }
}

impl OneOrMany {
    fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        match self {
            Self::One(path) => vec![dir.join(path)],
            Self::Many(paths) => paths.iter().map(|path| dir.join(path)).collect(),
        }
    }
}

impl Client {
    fn pairs(&self, dir: &Path) -> Vec<(PathBuf, PathBuf)> {
        let both = |path: &String| (dir.join(path), dir.join(path));
        match self {
            Self::One(path) => vec![both(path)],
            Self::Many(paths) => paths.iter().map(both).collect(),
            Self::Pairs(pairs) => pairs
                .iter()
                // An empty key means that the certificate's file holds it.
                .map(|(cert, key)| {
                    (
                        dir.join(cert),
                        dir.join(if key.is_empty() { cert } else { key }),
                    )
                })
                .collect(),
        }
    }
}

pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The API's root at a host of hosts.toml (with its `override_path`), or by default at `domain`.
fn server_url(domain: &str, given: Option<(&str, bool)>) -> Result<Url, String> {
    let (text, override_path) = match given {
        Some(given) => given,
        None if domain == DOCKER_HUB.0 => (DOCKER_HUB.1, false),
        None => (domain, false),
    };
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else if is_loopback(text) {
        format!("http://{text}")
    } else {
        format!("https://{text}")
    };
    let mut url = Url::parse(&with_scheme).map_err(|error| format!("host `{text}`: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("host `{text}` is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(format!("host `{text}` has credentials or a query"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    let path = if override_path || path.ends_with("/v2") {
        path
    } else {
        format!("{path}/v2")
    };
    url.set_path(&path);
    Ok(url)
}

/// Whether `host[:port][/…]` is this machine by its spelling: plain HTTP is the default there.
fn is_loopback(text: &str) -> bool {
    let authority = text.split('/').next().unwrap_or(text);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn headers(table: &toml::Table) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in table {
        let wrong = || format!("header `{name}` is malformed");
        let header = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        let values = match value {
            toml::Value::String(one) => vec![one.as_str()],
            toml::Value::Array(many) => many
                .iter()
                .map(toml::Value::as_str)
                .collect::<Option<_>>()
                .ok_or_else(wrong)?,
            _ => return Err(wrong()),
        };
        for value in values {
            let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            value.set_sensitive(true);
            headers.append(header.clone(), value);
        }
    }
    Ok(headers)
}

/// Go's notation in the units that make sense for a dial: `500ms`, `30s`, `1m`.
fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..split].parse().ok()?;
    match &text[split..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
