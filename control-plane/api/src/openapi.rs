//! The OpenAPI documents that kubectl reads, made from the schema table and the
//! resource registry: v2 for everything at once (JSON and protobuf), v3 one
//! document per group version.

mod gnostic;
mod paths;
mod schemas;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::gvk::{Resource, resources};

/// The version that the documents name: the API they describe.
const API_VERSION: &str = "v1.36.3";

/// OpenAPI 2.0 or 3.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavor {
    V2,
    V3,
}

/// `/openapi/v2` as JSON.
pub fn v2_json() -> &'static [u8] {
    static BODY: OnceLock<Vec<u8>> = OnceLock::new();
    BODY.get_or_init(|| v2_document().to_string().into_bytes())
}

/// `/openapi/v2` as `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf() -> &'static [u8] {
    static BODY: OnceLock<Vec<u8>> = OnceLock::new();
    BODY.get_or_init(|| gnostic::encode(&v2_document()))
}

/// `/openapi/v3`: the list of documents, as JSON.
pub fn v3_index() -> &'static [u8] {
    static BODY: OnceLock<Vec<u8>> = OnceLock::new();
    BODY.get_or_init(|| {
        let paths: Map<String, Value> = v3_documents()
            .iter()
            .map(|(path, document)| {
                let mut hasher = DefaultHasher::new();
                document.hash(&mut hasher);
                let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
                (path.clone(), json!({ "serverRelativeURL": url }))
            })
            .collect();
        json!({ "paths": paths }).to_string().into_bytes()
    })
}

/// `/openapi/v3/<path>` as JSON; `path` is `api/v1` or `apis/apps/v1`.
pub fn v3(path: &str) -> Option<&'static [u8]> {
    v3_documents().get(path).map(Vec::as_slice)
}

fn v3_documents() -> &'static BTreeMap<String, Vec<u8>> {
    static DOCUMENTS: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let mut groups: BTreeMap<String, Vec<&'static Resource>> = BTreeMap::new();
        for resource in resources() {
            let path = paths::base(resource).trim_start_matches('/').to_owned();
            groups.entry(path).or_default().push(resource);
        }
        groups
            .into_iter()
            .map(|(path, resources)| (path, v3_document(&resources).to_string().into_bytes()))
            .collect()
    })
}

fn v2_document() -> Value {
    let all: Vec<&'static Resource> = resources().iter().collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": paths::of(&all, Flavor::V2),
        "definitions": schemas::of(&all, Flavor::V2),
    })
}

fn v3_document(resources: &[&'static Resource]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": paths::of(resources, Flavor::V3),
        "components": {"schemas": schemas::of(resources, Flavor::V3)},
    })
}

#[cfg(test)]
mod tests;
