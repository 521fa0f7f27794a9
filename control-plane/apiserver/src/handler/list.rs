//! `list`: a page of objects at one revision.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use berth_api::status::{self, Status};
use berth_store::{Entry, Range, ReadError, Revision};
use http::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Call, Selectors};
use crate::{
    object,
    registry::{self, read_status},
    response::{self, Body, Form},
};

/// What a continue token says: the revision to go on reading and the last key given.
#[derive(Serialize, Deserialize)]
struct Continue {
    v: String,
    rv: Revision,
    start: String,
}

const CONTINUE_VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    fn encode(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let refuse = || status::bad_request("continue key is not valid: invalid continue token");
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| refuse())?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| refuse())?;
        if token.v == CONTINUE_VERSION {
            Ok(token)
        } else {
            Err(refuse())
        }
    }
}

/// What one list gathered.
struct Gathered {
    entries: Vec<Entry>,
    revision: Revision,
    next: Option<String>,
    remaining: Option<u64>,
}

/// Answers with the selected objects.
pub async fn answer(call: &Call) -> Result<Response<Body>, Status> {
    let form = call.form()?;
    let selectors = call.selectors()?;
    let gathered = gather(call, &selectors).await?;
    let mut metadata = json!({ "resourceVersion": gathered.revision.to_string() });
    if let Some(start) = &gathered.next {
        let token = Continue {
            v: CONTINUE_VERSION.to_owned(),
            rv: gathered.revision,
            start: start.clone(),
        };
        metadata["continue"] = token.encode().into();
        if let Some(remaining) = gathered.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    match form {
        Form::Object => {
            let json = join(call, &gathered.entries, &metadata);
            Ok(response::bytes(200, "application/json", json))
        }
        Form::Table => {
            let objects = values(call, &gathered.entries);
            let include = call.query.text("includeObject");
            let table = form.render_table(call.resource, &objects, &metadata, include);
            Ok(response::json(200, &table))
        }
        Form::Metadata => {
            let objects = values(call, &gathered.entries);
            let items: Vec<Value> = objects.iter().map(response::partial_metadata).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items,
            });
            Ok(response::json(200, &list))
        }
    }
}

fn values(call: &Call, entries: &[Entry]) -> Vec<Value> {
    let entries = entries.iter();
    entries
        .map(|entry| object::of_entry(call.resource, entry))
        .collect()
}

/// The list as JSON text, from the stored texts.
fn join(call: &Call, entries: &[Entry], metadata: &Value) -> Vec<u8> {
    let size: usize = entries.iter().map(|entry| entry.value.len() + 16).sum();
    let mut out = Vec::with_capacity(size + 256);
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
        call.resource.kind,
        call.resource.api_version(),
    );
    out.extend_from_slice(head.as_bytes());
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        if object::has_stored_shape(call.resource) {
            object::write_json(&entry.value, entry.modified, &mut out);
        } else {
            let json = object::json(call.resource, &entry.value, entry.modified);
            out.extend_from_slice(&json);
        }
    }
    out.extend_from_slice(b"]}");
    out
}

/// Where a list starts: its first key and revision.
fn start(call: &Call) -> Result<Range, Status> {
    let prefix = registry::prefix(call.resource, call.namespace());
    let mut range = Range {
        prefix,
        ..Range::default()
    };
    let version = call.query.text("resourceVersion");
    let token = call.query.text("continue");
    if !token.is_empty() {
        let token = Continue::decode(token)?;
        range.at = Some(token.rv);
        range.after = Some(token.start);
        return Ok(range);
    }
    if call.query.text("resourceVersionMatch") == "Exact" {
        range.at = Some(parse_version(version)?);
    }
    Ok(range)
}

/// A resourceVersion parameter; empty and `0` mean any.
pub fn parse_version(text: &str) -> Result<Revision, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        status::bad_request(format!(
            "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

/// Refuses a `resourceVersion` from the future.
async fn check_not_older(call: &Call) -> Result<(), Status> {
    let asked = parse_version(call.query.text("resourceVersion"))?;
    let newest = call.api.registry.revision().await?;
    if asked > newest {
        return Err(read_status(ReadError::Future { asked, newest }));
    }
    Ok(())
}

/// Reads pages until `limit` objects are selected or none is left.
async fn gather(call: &Call, selectors: &Selectors) -> Result<Gathered, Status> {
    let limit: usize = match call.query.text("limit") {
        "" => 0,
        text => text
            .parse()
            .map_err(|_| status::bad_request(format!("limit: Invalid value: \"{text}\"")))?,
    };
    check_not_older(call).await?;
    let mut range = start(call)?;
    let continued = range.after.is_some();
    let everything = selectors.is_everything();
    range.limit = limit;
    let mut gathered = Gathered {
        entries: Vec::new(),
        revision: 0,
        next: None,
        remaining: None,
    };
    loop {
        let page = call.api.registry.range(range.clone()).await;
        let page = page.map_err(|error| match error {
            ReadError::Compacted { .. } if continued => status::continue_expired(),
            error => read_status(error),
        })?;
        gathered.revision = page.revision;
        range.at = Some(page.revision);
        let last = page.entries.last().map(|entry| entry.key.to_string());
        for entry in page.entries {
            if everything || selectors.matches(&object::of_entry(call.resource, &entry)) {
                gathered.entries.push(entry);
            }
        }
        if page.remaining == 0 {
            return Ok(gathered);
        }
        range.after = last;
        if gathered.entries.len() >= limit {
            gathered.next = range.after;
            gathered.remaining = everything.then_some(page.remaining);
            return Ok(gathered);
        }
        range.limit = limit - gathered.entries.len();
    }
}
