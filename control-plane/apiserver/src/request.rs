//! What a request is about: its path, method and query as attributes.

use berth_api::gvk::{self, Resource};
use http::Method;

/// The query parameters, decoded, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the part after `?`.
    pub fn parse(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name)?;
        Some(&pair.1)
    }

    /// The first value of a parameter, or empty.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// A boolean as Go's `strconv.ParseBool` reads it; absent or odd is false.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }
}

/// The attributes of a request, which authorization judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for
    /// a path that is no resource the lower-case method.
    pub verb: &'static str,
    /// The path, without the query.
    pub path: String,
    /// Set for `/api/<v>/…` and `/apis/<g>/<v>/…`.
    pub is_resource: bool,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
}

impl Attributes {
    /// Reads a request's line.
    pub fn of(method: &Method, path: &str, query: &Query) -> Self {
        let mut attributes = Self {
            verb: plain_verb(method),
            path: path.to_owned(),
            ..Self::default()
        };
        let decoded: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(percent_decode)
            .collect();
        let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let rest = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                attributes.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                attributes.group = (*group).to_owned();
                attributes.version = (*version).to_owned();
                rest
            }
            _ => return attributes,
        };
        attributes.is_resource = true;
        attributes.take_resource(rest);
        attributes.verb = resource_verb(method, &attributes, query);
        if attributes.name.is_empty()
            && matches!(attributes.verb, "list" | "watch" | "deletecollection")
        {
            attributes.name = named_by_field(query).unwrap_or_default();
        }
        attributes
    }

    fn take_resource(&mut self, segments: &[&str]) {
        let rest = match segments {
            ["namespaces", namespace, rest @ ..]
                if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
            {
                self.namespace = (*namespace).to_owned();
                rest
            }
            ["namespaces", namespace, ..] => {
                self.namespace = (*namespace).to_owned();
                segments
            }
            _ => segments,
        };
        let mut rest = rest.iter().map(|segment| (*segment).to_owned());
        self.resource = rest.next().unwrap_or_default();
        self.name = rest.next().unwrap_or_default();
        self.subresource = rest.next().unwrap_or_default();
    }

    /// The resource of the path, when it is served in this scope.
    pub fn served(&self) -> Option<&'static Resource> {
        let resource = gvk::find(&self.group, &self.version, &self.resource)?;
        let has_namespace = !self.namespace.is_empty() && self.resource != "namespaces";
        let in_scope = if resource.namespaced {
            // Without a namespace only lists and watches over all of them exist, and the
            // creation of review objects.
            has_namespace || (self.path_has_no_name() && matches!(self.verb, "list" | "watch"))
        } else {
            !has_namespace
        };
        in_scope.then_some(resource)
    }

    fn path_has_no_name(&self) -> bool {
        self.path.trim_end_matches('/').ends_with(&self.resource)
    }

    /// `resource` or `resource/subresource`, as rules and messages name it.
    pub fn resource_and_subresource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

fn percent_decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    // A `+` is itself in a path, unlike in a form.
    let form = segment.replace('+', "%2B");
    let pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs.map(|(key, _)| key.into_owned()).collect()
}

fn plain_verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "",
    }
}

fn resource_verb(method: &Method, attributes: &Attributes, query: &Query) -> &'static str {
    let named = !attributes.name.is_empty();
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        "GET" | "HEAD" if query.flag("watch") && attributes.subresource.is_empty() => "watch",
        "GET" | "HEAD" if named => "get",
        "GET" | "HEAD" => "list",
        _ => "",
    }
}

/// The name in `fieldSelector=metadata.name=x`, which authorization takes for the name.
fn named_by_field(query: &Query) -> Option<String> {
    query.text("fieldSelector").split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        Some(value.trim_start_matches('=').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, expected: [&str; 6]) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let read = Attributes::of(&method, path, &Query::parse(query));
        let seen = [
            read.verb,
            &read.group,
            &read.resource,
            &read.subresource,
            &read.namespace,
            &read.name,
        ];
        assert_eq!(seen, expected, "{method} {uri}");
    }

    #[test]
    fn paths_become_attributes() {
        check("GET", "/api/v1/pods", ["list", "", "pods", "", "", ""]);
        check(
            "GET",
            "/api/v1/pods?watch=1",
            ["watch", "", "pods", "", "", ""],
        );
        let pod = "/api/v1/namespaces/d/pods/p";
        check("GET", pod, ["get", "", "pods", "", "d", "p"]);
        check("DELETE", pod, ["delete", "", "pods", "", "d", "p"]);
        check(
            "GET",
            "/api/v1/namespaces",
            ["list", "", "namespaces", "", "", ""],
        );
        check(
            "GET",
            "/api/v1/namespaces/d",
            ["get", "", "namespaces", "", "d", "d"],
        );
        check(
            "PUT",
            "/api/v1/namespaces/d/finalize",
            ["update", "", "namespaces", "finalize", "d", "d"],
        );
        check(
            "PATCH",
            "/apis/apps/v1/namespaces/d/deployments/x/scale",
            ["patch", "apps", "deployments", "scale", "d", "x"],
        );
        check("GET", "/apis/apps/v1", ["get", "", "", "", "", ""]);
        check(
            "GET",
            "/api/v1/namespaces/d/pods?fieldSelector=metadata.name%3Dp",
            ["list", "", "pods", "", "d", "p"],
        );
        check(
            "DELETE",
            "/api/v1/namespaces/d/pods",
            ["deletecollection", "", "pods", "", "d", ""],
        );
    }
}
