//! `watch`: changes as a stream of JSON events.

use std::{collections::VecDeque, time::Duration};

use berth_api::status::{self, Status};
use berth_store::{Change, ChangeKind, Range, Revision, Watch, WatchError, WatchItem};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Response;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Call, Selectors, list::parse_version};
use crate::{
    object,
    registry::{self, read_status},
    response::{self, Body, Form},
};

/// Between bookmarks of a watch that asked for them.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after one to two times this (stock
/// `--min-request-timeout`).
const MIN_TIMEOUT: u64 = 1800;

/// How the objects of one watch are shown.
struct View {
    call_resource: &'static berth_api::gvk::Resource,
    selectors: Selectors,
    form: Form,
    include: String,
    /// The columns of a Table are sent with the first event only.
    columns_sent: bool,
}

/// A running watch.
struct Running {
    view: View,
    ready: VecDeque<Bytes>,
    watch: Watch,
    stop: CancellationToken,
    deadline: Instant,
    next_bookmark: Option<Instant>,
    /// Set once the deadline passed and the last bookmark was asked for.
    closing: bool,
}

/// Answers with the event stream.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let mut view = View {
        call_resource: call.resource,
        selectors: call.selectors()?,
        form: call.form()?,
        include: call.query.text("includeObject").to_owned(),
        columns_sent: false,
    };
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let asked = parse_version(call.query.text("resourceVersion"))?;
    let list_first = match call.query.get("sendInitialEvents") {
        Some(_) => check_watch_list(call)?,
        None => asked == 0,
    };
    let mut ready = VecDeque::new();
    let mut after = match asked {
        0 => call.api.registry.revision().await?,
        asked => asked,
    };
    if list_first {
        after = initial(call, &mut view, &mut ready).await?;
        if call.query.flag("sendInitialEvents") && bookmarks {
            ready.push_back(view.bookmark(after, true));
        }
    }
    let prefix = match view.selectors.fields.required("metadata.name") {
        Some(name) if !call.resource.namespaced || !call.namespace().is_empty() => {
            registry::prefix(call.resource, call.namespace()) + name
        }
        _ => registry::prefix(call.resource, call.namespace()),
    };
    let watch = match call.api.registry.watch(prefix, after).await {
        Ok(watch) => watch,
        Err(WatchError::Compacted { asked, oldest }) => {
            return Ok(only_error(&status::too_old(asked, oldest)));
        }
        Err(error) => return Err(status::internal(error)),
    };
    let now = Instant::now();
    let running = Running {
        view,
        ready,
        watch,
        stop: call.api.stop.clone(),
        deadline: now + timeout(call)?,
        next_bookmark: bookmarks.then(|| now + BOOKMARKS),
        closing: false,
    };
    let chunks = stream::unfold(running, |mut running| async move {
        let chunk = running.next().await?;
        Some((chunk, running))
    });
    Ok(event_stream(response::stream(chunks)))
}

/// Checks the parameters that belong to `sendInitialEvents` (KEP-3157).
fn check_watch_list(call: &Call) -> Result<bool, Status> {
    let matching = call.query.text("resourceVersionMatch");
    if matching != "NotOlderThan" {
        return Err(status::bad_request(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    Ok(call.query.flag("sendInitialEvents"))
}

fn timeout(call: &Call) -> Result<Duration, Status> {
    match call.query.text("timeoutSeconds") {
        "" | "0" => {
            let seconds = rand::rng().random_range(MIN_TIMEOUT..2 * MIN_TIMEOUT);
            Ok(Duration::from_secs(seconds))
        }
        text => text
            .parse()
            .map(Duration::from_secs)
            .map_err(|_| status::bad_request(format!("timeoutSeconds: Invalid value: \"{text}\""))),
    }
}

/// Queues an ADDED for every present object; the revision they were read at.
async fn initial(
    call: &Call,
    view: &mut View,
    ready: &mut VecDeque<Bytes>,
) -> Result<Revision, Status> {
    let range = Range {
        prefix: registry::prefix(call.resource, call.namespace()),
        ..Range::default()
    };
    let page = call.api.registry.range(range).await.map_err(read_status)?;
    for entry in &page.entries {
        let stored = (entry.value.as_ref(), entry.modified);
        if view.selectors.is_everything() || view.selects(stored.0) {
            let event = view.event("ADDED", stored.0, stored.1);
            ready.push_back(event);
        }
    }
    Ok(page.revision)
}

fn event_stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let value = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, value);
    response
}

/// A stream of one ERROR event, as watches that cannot start from their version end.
fn only_error(status: &Status) -> Response<Body> {
    let event = json!({ "type": "ERROR", "object": status.to_value() });
    event_stream(response::full(format!("{event}\n")))
}

impl Running {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(chunk) = self.take_ready() {
                return Some(chunk);
            }
            let wake = self
                .next_bookmark
                .unwrap_or(self.deadline)
                .min(self.deadline);
            // All branches are cancel-safe: a stream's `next`, a timer, a token.
            let item = tokio::select! {
                item = self.watch.next() => Some(item?),
                () = tokio::time::sleep_until(wake), if !self.closing => None,
                () = self.stop.cancelled() => return None,
            };
            match item {
                Some(WatchItem::Change(change)) => self.queue(&change),
                Some(WatchItem::Progress(revision)) => {
                    let bookmark = self.view.bookmark(revision, false);
                    self.ready.push_back(bookmark);
                    if self.closing {
                        self.watch_ends();
                    }
                }
                None if self.next_bookmark.is_none() => return None,
                None => self.tick(),
            }
        }
    }

    /// Everything that is ready, as one chunk.
    fn take_ready(&mut self) -> Option<Bytes> {
        if self.ready.len() <= 1 {
            return self.ready.pop_front();
        }
        let mut chunk = Vec::new();
        while let Some(event) = self.ready.pop_front() {
            chunk.extend_from_slice(&event);
            if chunk.len() > 64 * 1024 {
                break;
            }
        }
        Some(chunk.into())
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.closing = now >= self.deadline;
        self.next_bookmark = Some(now + BOOKMARKS);
        self.watch.request_progress();
    }

    /// After the last bookmark nothing follows.
    fn watch_ends(&mut self) {
        self.stop = CancellationToken::new();
        self.stop.cancel();
    }

    fn queue(&mut self, change: &Change) {
        let Some(kind) = self.view.kind(change) else {
            return;
        };
        let (stored, revision) = match kind {
            // The object left the selection: clients get its state as it was last selected.
            "DELETED" => (
                change.previous.as_ref().unwrap_or(&change.entry.value),
                change.entry.modified,
            ),
            _ => (&change.entry.value, change.entry.modified),
        };
        let event = self.view.event(kind, stored, revision);
        self.ready.push_back(event);
    }
}

impl View {
    fn selects(&self, stored: &[u8]) -> bool {
        let object = object::value(self.call_resource, stored, 0);
        self.selectors.matches(&object)
    }

    /// The event type that a change is for this watcher; a change of the selection looks
    /// like an addition or deletion.
    fn kind(&self, change: &Change) -> Option<&'static str> {
        if self.selectors.is_everything() {
            return Some(match change.kind {
                ChangeKind::Created => "ADDED",
                ChangeKind::Updated => "MODIFIED",
                ChangeKind::Deleted => "DELETED",
            });
        }
        let before = change
            .previous
            .as_ref()
            .is_some_and(|old| self.selects(old));
        let after = change.kind != ChangeKind::Deleted && self.selects(&change.entry.value);
        match (before, after) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    fn event(&mut self, kind: &str, stored: &[u8], revision: Revision) -> Bytes {
        if self.form == Form::Object {
            let mut out = Vec::with_capacity(stored.len() + 64);
            out.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
            if object::has_stored_shape(self.call_resource) {
                object::write_json(stored, revision, &mut out);
            } else {
                out.extend_from_slice(&object::json(self.call_resource, stored, revision));
            }
            out.extend_from_slice(b"}\n");
            return out.into();
        }
        let object = object::value(self.call_resource, stored, revision);
        self.wrap(kind, object)
    }

    fn wrap(&mut self, kind: &str, object: Value) -> Bytes {
        let mut shown = self.form.render(self.call_resource, object, &self.include);
        if self.form == Form::Table {
            if self.columns_sent {
                shown["columnDefinitions"] = Value::Null;
            }
            self.columns_sent = true;
        }
        format!("{}\n", json!({ "type": kind, "object": shown })).into()
    }

    /// A BOOKMARK: no object but its kind and version.
    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = match self.form {
            Form::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": { "resourceVersion": revision.to_string() },
                "columnDefinitions": null,
                "rows": [{ "cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                    "metadata": metadata,
                } }],
            }),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Form::Object => json!({
                "kind": self.call_resource.kind,
                "apiVersion": self.call_resource.api_version(),
                "metadata": metadata,
            }),
        };
        format!("{}\n", json!({ "type": "BOOKMARK", "object": object })).into()
    }
}
