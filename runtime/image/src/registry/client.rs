//! A session with the hosts of one registry, for one repository: requests with authorisation,
//! redirects and the registry's own words in errors; manifests and configurations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::sync::Mutex;
use url::Url;

use super::auth::{self, Challenge};
use super::error::{RegistryError, chain};
use super::hosts::{Endpoint, authority};
use super::transport::HttpClient;
use crate::config::Credentials;
use crate::digest::Digest;
use crate::manifest;

/// Until the answer's header is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Until a document's body is there.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_REDIRECTS: usize = 5;
/// Bytes of an error or token document.
const MAX_ANSWER: usize = 256 << 10;
const AGENT: &str = concat!("berth/", env!("CARGO_PKG_VERSION"));
const CONTENT_DIGEST: &str = "docker-content-digest";

/// One host with its client and, once it asked for one, its authorisation.
pub(crate) struct Host {
    pub endpoint: Endpoint,
    http: HttpClient,
    /// Only for the registry itself.
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// All hosts of a registry, for one repository.
pub(crate) struct Session {
    pub hosts: Vec<Host>,
    /// The repository's path.
    pub repository: String,
    /// Bytes of a document.
    pub limit: u64,
    /// Bytes of one range of a large blob.
    pub range_size: u64,
}

/// What a name stands for at the registry.
pub(crate) struct Resolved {
    pub digest: Digest,
    /// The document, if it came along.
    pub document: Option<(Bytes, Option<String>)>,
}

impl Host {
    pub fn new(endpoint: Endpoint, http: HttpClient, credentials: Option<&Credentials>) -> Self {
        let credentials = credentials.filter(|_| endpoint.is_server).cloned();
        Self {
            endpoint,
            http,
            credentials,
            authorization: Mutex::new(None),
        }
    }

    fn name(&self) -> String {
        self.endpoint.name()
    }

    fn refused(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Refused {
            host: self.name(),
            reason: reason.into(),
        }
    }

    /// Sends a request, authorising once if asked to, and follows redirects. Any status comes back.
    pub async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        repository: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let used = self.authorization.lock().await.clone();
        let answer = self.follow(method, url, headers, used.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let fresh = {
            let mut current = self.authorization.lock().await;
            // Another request may have authorised meanwhile.
            if *current == used {
                *current = self.authorize(&answer, repository).await?;
            }
            current.clone()
        };
        if fresh.is_none() || fresh == used {
            return Ok(answer);
        }
        self.follow(method, url, headers, fresh.as_ref()).await
    }

    /// Answers a 401's challenge; `None` when there is nothing to answer with.
    async fn authorize(
        &self,
        answer: &Response<Incoming>,
        repository: &str,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let values = answer.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(auth::parse_challenges)
            .collect();
        if let Some(Credentials::Bearer(token)) = &self.credentials {
            return Ok(auth::bearer(token));
        }
        let of = |scheme: &str| {
            challenges
                .iter()
                .find(|challenge| challenge.scheme == scheme)
        };
        if let Some(challenge) = of("bearer") {
            return self.token(challenge, repository).await.map(Some);
        }
        match (of("basic"), &self.credentials) {
            (Some(_), Some(Credentials::Basic { username, password })) => {
                Ok(auth::basic(username, password))
            }
            _ => Ok(None),
        }
    }

    async fn token(
        &self,
        challenge: &Challenge,
        repository: &str,
    ) -> Result<HeaderValue, RegistryError> {
        let scope = format!("repository:{repository}:pull");
        let base = &self.endpoint.base;
        let asked = auth::token_request(base, challenge, &scope, self.credentials.as_ref())
            .map_err(|reason| self.refused(format!("token service refused: {reason}")))?;
        let method = if asked.form.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = Request::builder()
            .method(method)
            .uri(asked.url.as_str())
            .header(USER_AGENT, AGENT);
        if let Some(authorization) = asked.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if asked.form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(Bytes::from(asked.form.unwrap_or_default()));
        let service = authority(&asked.url);
        let request = request
            .body(body)
            .map_err(|error| self.refused(error.to_string()))?;
        // A redirect of a token service is an error: it would carry credentials elsewhere.
        let answer = self.exchange(request, &service).await?;
        let status = answer.status();
        let body = bounded(answer, MAX_ANSWER, &service).await?;
        if !status.is_success() {
            return Err(RegistryError::from_status(&service, status, &body));
        }
        auth::parse_token(&body).ok_or_else(|| RegistryError::Refused {
            host: service,
            reason: "the token service's answer holds no usable token".to_owned(),
        })
    }

    async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder()
                .method(method)
                .uri(url.as_str())
                .header(USER_AGENT, AGENT);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            // Credentials and configured headers are this origin's alone.
            if url.origin() == self.endpoint.base.origin() {
                for (name, value) in &self.endpoint.headers {
                    request = request.header(name, value);
                }
                if let Some(authorization) = authorization {
                    request = request.header(AUTHORIZATION, authorization);
                }
            }
            let request = request
                .body(Full::default())
                .map_err(|e| self.refused(e.to_string()))?;
            let answer = self.exchange(request, &authority(&url)).await?;
            if !is_redirect(answer.status()) {
                return Ok(answer);
            }
            let location = answer
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let location = location.ok_or_else(|| self.refused("redirect without a location"))?;
            let next = url
                .join(location)
                .map_err(|_| self.refused("redirect to a malformed URL"))?;
            auth::check_target(&url, &next)
                .and_then(|()| auth::check_target(&self.endpoint.base, &next))
                .map_err(|reason| self.refused(format!("redirect refused: {reason}")))?;
            url = next;
        }
        Err(self.refused("too many redirects"))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        host: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let failed = |reason| RegistryError::Transport {
            host: host.to_owned(),
            reason,
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, self.http.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(chain(&error))),
            Err(_) => Err(failed(format!(
                "no answer within {} s",
                ANSWER_TIMEOUT.as_secs()
            ))),
        }
    }

    /// `<base>/<repository>/<kind>/<name>`, with `ns` at a mirror.
    pub fn url(&self, repository: &str, kind: &str, name: &str) -> Url {
        let mut url = self.endpoint.base.clone();
        url.set_path(&format!(
            "{}/{repository}/{kind}/{name}",
            self.endpoint.base.path()
        ));
        if let Some(namespace) = &self.endpoint.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// Notes why this host did not serve. A mirror's failure may be hidden by the next host's
    /// success, so it is logged.
    pub fn gave_up(&self, error: RegistryError, failures: &mut Vec<RegistryError>) {
        if !self.endpoint.is_server {
            tracing::warn!(mirror = %self.name(), %error, "mirror failed, trying the next host");
        }
        failures.push(error);
    }

    /// Turns an answer that is not a success into an error, with the registry's words.
    pub async fn failure(&self, answer: Response<Incoming>) -> RegistryError {
        let host = self.name();
        let status = answer.status();
        let body = bounded(answer, MAX_ANSWER, &host).await.unwrap_or_default();
        RegistryError::from_status(&host, status, &body)
    }
}

impl Session {
    /// Asks the hosts, in order, which digest `name` has; `pinned` is the only right answer if set.
    pub async fn resolve(
        &self,
        name: &str,
        pinned: Option<&Digest>,
    ) -> Result<Resolved, RegistryError> {
        let mut failures = Vec::new();
        for host in self.hosts.iter().filter(|host| host.endpoint.can_resolve) {
            match self.resolve_at(host, name).await {
                Ok(resolved) => match pinned.filter(|pinned| **pinned != resolved.digest) {
                    None => return Ok(resolved),
                    Some(pinned) => {
                        let (host_name, expected) = (host.name(), pinned.clone());
                        let error = RegistryError::DigestMismatch {
                            host: host_name,
                            expected,
                        };
                        host.gave_up(error, &mut failures);
                    }
                },
                Err(error) => host.gave_up(error, &mut failures),
            }
        }
        Err(RegistryError::all_hosts(failures).unwrap_or_else(|| self.no_host("resolve")))
    }

    /// HEAD first: registries with quotas count only GET.
    async fn resolve_at(&self, host: &Host, name: &str) -> Result<Resolved, RegistryError> {
        let url = host.url(&self.repository, "manifests", name);
        let accept = accept_documents();
        let answer = host
            .send(&Method::HEAD, &url, &accept, &self.repository)
            .await?;
        if answer.status().is_success()
            && let Some(digest) = stated_digest(&answer)
        {
            return Ok(Resolved {
                digest,
                document: None,
            });
        }
        // No digest, or no success: HEAD has no body that could say why.
        let answer = host
            .send(&Method::GET, &url, &accept, &self.repository)
            .await?;
        if !answer.status().is_success() {
            return Err(host.failure(answer).await);
        }
        let stated = stated_digest(&answer);
        let media_type = content_type(&answer);
        let body = self.document_body(host, answer).await?;
        let digest = stated.unwrap_or_else(|| Digest::of(&body));
        if !digest.verifies(&body) {
            return Err(RegistryError::DigestMismatch {
                host: host.name(),
                expected: digest,
            });
        }
        Ok(Resolved {
            digest,
            document: Some((body, media_type)),
        })
    }

    /// Fetches the manifest or index with this digest, and the content type it came with.
    pub async fn manifest(
        &self,
        digest: &Digest,
    ) -> Result<(Bytes, Option<String>), RegistryError> {
        self.document("manifests", digest).await
    }

    /// Fetches the image configuration with this digest.
    pub async fn config(&self, digest: &Digest) -> Result<Bytes, RegistryError> {
        Ok(self.document("blobs", digest).await?.0)
    }

    async fn document(
        &self,
        kind: &str,
        digest: &Digest,
    ) -> Result<(Bytes, Option<String>), RegistryError> {
        let mut failures = Vec::new();
        for host in self.hosts.iter().filter(|host| host.endpoint.can_pull) {
            match self.document_at(host, kind, digest).await {
                Ok(document) => return Ok(document),
                Err(error) => host.gave_up(error, &mut failures),
            }
        }
        Err(RegistryError::all_hosts(failures).unwrap_or_else(|| self.no_host("pull")))
    }

    async fn document_at(
        &self,
        host: &Host,
        kind: &str,
        digest: &Digest,
    ) -> Result<(Bytes, Option<String>), RegistryError> {
        let url = host.url(&self.repository, kind, digest.as_str());
        let answer = host
            .send(&Method::GET, &url, &accept_documents(), &self.repository)
            .await?;
        if !answer.status().is_success() {
            return Err(host.failure(answer).await);
        }
        let media_type = content_type(&answer);
        let body = self.document_body(host, answer).await?;
        if !digest.verifies(&body) {
            return Err(RegistryError::DigestMismatch {
                host: host.name(),
                expected: digest.clone(),
            });
        }
        Ok((body, media_type))
    }

    async fn document_body(
        &self,
        host: &Host,
        answer: Response<Incoming>,
    ) -> Result<Bytes, RegistryError> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        bounded(answer, limit, &host.name()).await
    }

    pub fn no_host(&self, capability: &str) -> RegistryError {
        let host = self.hosts.last().map(Host::name).unwrap_or_default();
        RegistryError::Refused {
            host,
            reason: format!("no host has the capability `{capability}`"),
        }
    }
}

/// Collects a body of at most `limit` bytes.
async fn bounded(
    answer: Response<Incoming>,
    limit: usize,
    host: &str,
) -> Result<Bytes, RegistryError> {
    let host = || host.to_owned();
    let body = Limited::new(answer.into_body(), limit).collect();
    match tokio::time::timeout(DOCUMENT_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(RegistryError::Refused {
                host: host(),
                reason: format!("the document is larger than {limit} bytes"),
            })
        }
        Ok(Err(error)) => Err(RegistryError::Transport {
            host: host(),
            reason: chain(&*error),
        }),
        Err(_) => Err(RegistryError::Transport {
            host: host(),
            reason: format!(
                "the document did not arrive within {} s",
                DOCUMENT_TIMEOUT.as_secs()
            ),
        }),
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn accept_documents() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for media_type in manifest::ACCEPTED {
        headers.append(ACCEPT, HeaderValue::from_static(media_type));
    }
    headers
}

fn stated_digest(answer: &Response<Incoming>) -> Option<Digest> {
    let text = answer.headers().get(CONTENT_DIGEST)?.to_str().ok()?;
    Digest::parse(text).ok()
}

/// The content type without parameters.
fn content_type(answer: &Response<Incoming>) -> Option<String> {
    let text = answer.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    Some(
        text.split(';')
            .next()
            .unwrap_or(text)
            .trim()
            .to_ascii_lowercase(),
    )
}

/// Shared by the tasks of one pull.
pub(crate) type SharedSession = Arc<Session>;
