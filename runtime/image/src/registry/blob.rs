//! Blobs: streamed into a [`Download`], large ones by several ranges at once, each resumed where
//! it broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::client::{Host, Session};
use super::error::{RegistryError, chain};
use crate::digest::Digest;
use crate::download::Download;

/// Blobs of this many ranges are fetched by ranges.
const RANGED_FROM: u64 = 4;
/// Ranges of one blob at once, if permits are free.
const MAX_RANGES: usize = 4;
/// Longest silence of a body.
const SILENCE: Duration = Duration::from_secs(60);
/// Attempts without any progress before a range is given up.
const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Fetches `digest` of `size` bytes into `download`, from the first host that has it. The caller
/// holds one permit; spare ones are used for ranges.
pub(crate) async fn fetch(
    session: &Session,
    digest: &Digest,
    size: u64,
    download: &Download,
    permits: &Arc<Semaphore>,
) -> Result<(), RegistryError> {
    let mut failures = Vec::new();
    for host in session.hosts.iter().filter(|host| host.endpoint.can_pull) {
        let blob = Blob {
            range_size: session.range_size,
            host,
            repository: &session.repository,
            digest,
            size,
            download,
        };
        match blob.fetch(permits).await {
            Ok(()) => return Ok(()),
            Err(error @ RegistryError::GivenUp) => return Err(error),
            Err(error) => host.gave_up(error, &mut failures),
        }
    }
    Err(RegistryError::all_hosts(failures).unwrap_or_else(|| session.no_host("pull")))
}

struct Blob<'a> {
    host: &'a Host,
    repository: &'a str,
    digest: &'a Digest,
    size: u64,
    range_size: u64,
    download: &'a Download,
}

impl Blob<'_> {
    async fn fetch(&self, permits: &Arc<Semaphore>) -> Result<(), RegistryError> {
        let range_size = self.range_size;
        if self.size < range_size.saturating_mul(RANGED_FROM) {
            return self.range(0, self.size).await;
        }
        // The first range tells whether the registry knows ranges at all.
        match self.request(0, range_size).await? {
            answer if answer.status() == StatusCode::PARTIAL_CONTENT => {
                let rest = self.ranges(range_size, permits);
                let first = self.resume(0, range_size, Some(answer));
                futures::try_join!(first, rest).map(|_| ())
            }
            answer => self.resume(0, self.size, Some(answer)).await,
        }
    }

    /// Everything from `start` on: one worker always, more while permits are free.
    async fn ranges(&self, start: u64, permits: &Arc<Semaphore>) -> Result<(), RegistryError> {
        let next = AtomicU64::new(start);
        let mut workers: FuturesUnordered<_> = (0..MAX_RANGES - 1)
            .filter_map(|worker| match worker {
                0 => Some(None),
                _ => permits.clone().try_acquire_owned().ok().map(Some),
            })
            .map(|permit| {
                let next = &next;
                async move {
                    let _held = permit;
                    loop {
                        let start = next.fetch_add(self.range_size, Ordering::Relaxed);
                        if start >= self.size {
                            return Ok(());
                        }
                        self.range(start, (start + self.range_size).min(self.size))
                            .await?;
                    }
                }
            })
            .collect();
        while let Some(done) = workers.next().await {
            done?;
        }
        Ok(())
    }

    async fn range(&self, start: u64, end: u64) -> Result<(), RegistryError> {
        self.resume(start, end, None).await
    }

    /// Fetches `start..end`, going on where a broken body ended.
    async fn resume(
        &self,
        start: u64,
        end: u64,
        mut answer: Option<Response<Incoming>>,
    ) -> Result<(), RegistryError> {
        let mut at = start;
        let mut attempt = 0;
        loop {
            let before = at;
            let result = match answer.take() {
                Some(answer) => self.receive(answer, &mut at, end).await,
                None => match self.request(at, end).await {
                    Ok(answer) => self.receive(answer, &mut at, end).await,
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(()) => return Ok(()),
                Err(error @ RegistryError::GivenUp) => return Err(error),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    attempt = if at > before { 0 } else { attempt + 1 };
                    if attempt >= ATTEMPTS {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(FIRST_PAUSE * 2u32.pow(attempt)).await;
        }
    }

    async fn request(&self, start: u64, end: u64) -> Result<Response<Incoming>, RegistryError> {
        let url = self
            .host
            .url(self.repository, "blobs", self.digest.as_str());
        let mut headers = HeaderMap::new();
        if start > 0 || end < self.size {
            let range = HeaderValue::try_from(format!("bytes={start}-{}", end.saturating_sub(1)));
            headers.insert(RANGE, range.map_err(|e| self.refused(e.to_string()))?);
        }
        let answer = self
            .host
            .send(&Method::GET, &url, &headers, self.repository)
            .await?;
        if !answer.status().is_success() {
            return Err(self.host.failure(answer).await);
        }
        Ok(answer)
    }

    /// Writes a body's part of `at..end`, moving `at` along.
    async fn receive(
        &self,
        answer: Response<Incoming>,
        at: &mut u64,
        end: u64,
    ) -> Result<(), RegistryError> {
        let mut position = self.first_byte(&answer, *at)?;
        let mut body = answer.into_body();
        while *at < end {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.broken(chain(&error))),
                Ok(None) => return Err(self.broken(format!("the blob ended at byte {position}"))),
                Err(_) => return Err(self.broken(format!("no data for {} s", SILENCE.as_secs()))),
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let frame_end = position + data.len() as u64;
            if frame_end > *at {
                let from = usize::try_from(at.saturating_sub(position)).unwrap_or(0);
                let length = usize::try_from((end - *at).min(frame_end - *at)).unwrap_or(0);
                let part = &data[from..from + length];
                self.download
                    .write(*at, part)
                    .map_err(|error| self.store_error(error))?;
                *at += part.len() as u64;
            }
            position = frame_end;
        }
        if end == self.size {
            self.ends(body, position).await
        } else {
            Ok(())
        }
    }

    /// A body that goes on beyond the blob's size is not the blob.
    async fn ends(&self, mut body: Incoming, position: u64) -> Result<(), RegistryError> {
        let too_long = || self.refused(format!("the blob is larger than its {} bytes", self.size));
        if position > self.size {
            return Err(too_long());
        }
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
            if frame.into_data().is_ok_and(|data| !data.is_empty()) {
                return Err(too_long());
            }
        }
        Ok(())
    }

    /// Where a body starts: at 0 when the registry ignores ranges.
    fn first_byte(&self, answer: &Response<Incoming>, wanted: u64) -> Result<u64, RegistryError> {
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(0);
        }
        let range = answer
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let start = range
            .and_then(|range| range.strip_prefix("bytes "))
            .and_then(|range| range.split('-').next())
            .and_then(|start| start.trim().parse().ok());
        match start {
            Some(start) if start == wanted => Ok(start),
            _ => Err(self.refused("the answer is not the range asked for")),
        }
    }

    fn store_error(&self, error: std::io::Error) -> RegistryError {
        if self.download.given_up() {
            RegistryError::GivenUp
        } else {
            RegistryError::Store(error)
        }
    }

    fn broken(&self, reason: String) -> RegistryError {
        RegistryError::Transport {
            host: self.host.endpoint.name(),
            reason,
        }
    }

    fn refused(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Refused {
            host: self.host.endpoint.name(),
            reason: reason.into(),
        }
    }
}
