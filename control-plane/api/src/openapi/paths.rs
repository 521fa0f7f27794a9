//! The operations on every path.

use serde_json::{Map, Value, json};

use super::Flavor;
use super::schemas::reference;
use crate::gvk::{Resource, Subresource, join_group_version};
use crate::schema::{Type, of_kind, type_of};

const STATUS: &str = "apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "apimachinery.pkg.apis.meta.v1.DeleteOptions";
const PATCH: &str = "apimachinery.pkg.apis.meta.v1.Patch";

const WRITE: [(&str, &str); 3] = [
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];
const LIST: [(&str, &str); 9] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const FORCE: [(&str, &str); 1] = [("force", "boolean")];

/// `/api/v1` or `/apis/<group>/<version>`.
pub(super) fn base(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    }
}

/// All paths of the resources.
pub(super) fn of(resources: &[&'static Resource], flavor: Flavor) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in resources {
        let root = base(resource);
        let collection = if resource.namespaced {
            format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
        } else {
            format!("{root}/{}", resource.plural)
        };
        let builder = Builder {
            resource,
            of: type_of(resource),
            flavor,
        };
        if resource.namespaced && resource.has_verb("list") {
            let all = json!({"get": builder.list("ForAllNamespaces")});
            paths.insert(format!("{root}/{}", resource.plural), all);
        }
        paths.insert(collection.clone(), builder.collection());
        if resource.is_stored() {
            paths.insert(format!("{collection}/{{name}}"), builder.item());
        }
        for sub in &resource.subresources {
            let path = format!("{collection}/{{name}}/{}", sub.name);
            paths.insert(path, builder.subresource(sub));
        }
    }
    paths
}

struct Builder<'a> {
    resource: &'a Resource,
    of: &'static Type,
    flavor: Flavor,
}

/// One operation before it is written in either flavor.
struct Operation<'a> {
    verb: &'static str,
    action: &'static str,
    suffix: &'a str,
    kind: (&'a str, &'a str, &'a str),
    query: &'a [&'a [(&'a str, &'a str)]],
    body: Option<&'a str>,
    answer: &'a str,
}

impl Builder<'_> {
    fn kind(&self) -> (&str, &str, &str) {
        (
            self.resource.group,
            self.resource.version,
            self.resource.kind,
        )
    }

    fn list(&self, suffix: &str) -> Value {
        let answer = format!("{}List", self.of.name);
        self.write(&Operation {
            verb: "list",
            action: "list",
            suffix,
            kind: self.kind(),
            query: &[&LIST],
            body: None,
            answer: &answer,
        })
    }

    fn simple(
        &self,
        verb: &'static str,
        action: &'static str,
        query: &[&[(&str, &str)]],
        body: Option<&str>,
        answer: &str,
    ) -> Value {
        self.write(&Operation {
            verb,
            action,
            suffix: "",
            kind: self.kind(),
            query,
            body,
            answer,
        })
    }

    fn collection(&self) -> Value {
        let name = self.of.name;
        let mut item = self.path_item(false);
        if self.resource.has_verb("list") {
            item["get"] = self.list("");
        }
        if self.resource.has_verb("create") {
            item["post"] = self.simple("create", "post", &[&WRITE], Some(name), name);
        }
        if self.resource.has_verb("deletecollection") {
            item["delete"] = self.simple(
                "deleteCollection",
                "deletecollection",
                &[&LIST, &DELETE],
                Some(DELETE_OPTIONS),
                STATUS,
            );
        }
        item
    }

    fn item(&self) -> Value {
        let name = self.of.name;
        let mut item = self.path_item(true);
        item["get"] = self.simple("read", "get", &[], None, name);
        item["put"] = self.simple("replace", "put", &[&WRITE], Some(name), name);
        item["patch"] = self.simple("patch", "patch", &[&WRITE, &FORCE], Some(PATCH), name);
        item["delete"] = self.simple("delete", "delete", &[&DELETE], Some(DELETE_OPTIONS), STATUS);
        item
    }

    fn subresource(&self, sub: &Subresource) -> Value {
        let of = of_kind(&join_group_version(sub.group, sub.version), sub.kind);
        let connect = of.is_none();
        let name = of.map_or(STATUS, |of| of.name);
        let suffix = capitalised(sub.name);
        let operation = |verb, action, query, body, answer| {
            self.write(&Operation {
                verb,
                action,
                suffix: &suffix,
                kind: (sub.group, sub.version, sub.kind),
                query,
                body,
                answer,
            })
        };
        let mut item = self.path_item(true);
        for verb in &sub.verbs {
            match *verb {
                "get" if connect => {
                    item["get"] = operation("connectGet", "connect", &[], None, STATUS)
                }
                "create" if connect => {
                    item["post"] = operation("connectPost", "connect", &[], None, STATUS)
                }
                "get" => item["get"] = operation("read", "get", &[], None, name),
                "create" => item["post"] = operation("create", "post", &[&WRITE], Some(name), name),
                "update" => item["put"] = operation("replace", "put", &[&WRITE], Some(name), name),
                "patch" => {
                    item["patch"] =
                        operation("patch", "patch", &[&WRITE, &FORCE], Some(PATCH), name)
                }
                _ => {}
            }
        }
        item
    }

    /// The parameters in the path.
    fn path_item(&self, named: bool) -> Value {
        let mut parameters = Vec::new();
        for (name, wanted) in [("name", named), ("namespace", self.resource.namespaced)] {
            if wanted {
                parameters.push(self.parameter(name, "string", "path"));
            }
        }
        parameters.push(self.parameter("pretty", "string", "query"));
        json!({ "parameters": parameters })
    }

    fn parameter(&self, name: &str, kind: &str, place: &str) -> Value {
        let mut out = match self.flavor {
            Flavor::V2 => json!({"name": name, "in": place, "type": kind, "uniqueItems": true}),
            Flavor::V3 => {
                json!({"name": name, "in": place, "schema": {"type": kind, "uniqueItems": true}})
            }
        };
        if place == "path" {
            out["required"] = true.into();
        }
        out
    }

    fn write(&self, operation: &Operation) -> Value {
        let (group, version, kind) = operation.kind;
        let mut parameters: Vec<Value> = operation
            .query
            .iter()
            .copied()
            .flatten()
            .map(|(name, kind)| self.parameter(name, kind, "query"))
            .collect();
        let answer = reference(operation.answer, self.flavor);
        let mut out = json!({
            "operationId": self.operation_id(operation),
            "tags": [self.tag()],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        });
        let body = operation.body.map(|name| reference(name, self.flavor));
        match self.flavor {
            Flavor::V2 => {
                if let Some(schema) = body {
                    parameters.push(
                        json!({"name": "body", "in": "body", "required": true, "schema": schema}),
                    );
                }
                out["consumes"] = consumes(operation).into();
                out["produces"] = vec!["application/json", "application/yaml"].into();
                out["schemes"] = vec!["https"].into();
                out["responses"] = json!({"200": {"description": "OK", "schema": answer}});
            }
            Flavor::V3 => {
                if let Some(schema) = body {
                    let content: Map<String, Value> = consumes(operation)
                        .into_iter()
                        .map(|media| (media.to_owned(), json!({ "schema": schema })))
                        .collect();
                    out["requestBody"] = json!({"required": true, "content": content});
                }
                out["responses"] = json!({"200": {"description": "OK",
                    "content": {"application/json": {"schema": answer}}}});
            }
        }
        out["parameters"] = parameters.into();
        out
    }

    fn tag(&self) -> String {
        format!(
            "{}_{}",
            short_group(self.resource.group),
            self.resource.version
        )
    }

    fn operation_id(&self, operation: &Operation) -> String {
        let (verb, method) = match operation.verb {
            "connectGet" => ("connect", "Get"),
            "connectPost" => ("connect", "Post"),
            "deleteCollection" => ("delete", ""),
            verb => (verb, ""),
        };
        let group = capitalised(short_group(self.resource.group));
        let version = capitalised(self.resource.version);
        let collection = if operation.verb == "deleteCollection" {
            "Collection"
        } else {
            ""
        };
        let all = operation.suffix == "ForAllNamespaces";
        let namespaced = if self.resource.namespaced && !all {
            "Namespaced"
        } else {
            ""
        };
        format!(
            "{verb}{group}{version}{method}{collection}{namespaced}{}{}",
            self.resource.kind, operation.suffix
        )
    }
}

fn consumes(operation: &Operation) -> Vec<&'static str> {
    if operation.action == "patch" {
        crate::patch::MEDIA_TYPES.to_vec()
    } else {
        vec!["*/*"]
    }
}

fn short_group(group: &str) -> &str {
    if group.is_empty() {
        "core"
    } else {
        group.split('.').next().unwrap_or(group)
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}
