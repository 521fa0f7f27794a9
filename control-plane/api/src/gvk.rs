//! The registry of served resources, read from `data/resources.json`, which
//! holds what a stock kube-apiserver 1.36 publishes in its discovery.

use std::sync::OnceLock;

use serde::Deserialize;

/// One resource of one group and version, as discovery describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, for example `v1`.
    pub version: &'static str,
    /// Name in paths and rules, for example `pods`.
    pub plural: &'static str,
    /// Lower-case singular that kubectl accepts.
    pub singular: &'static str,
    /// Kind of the objects, for example `Pod`.
    pub kind: &'static str,
    /// Abbreviations that kubectl accepts, for example `po`.
    pub short_names: Vec<&'static str>,
    /// Groupings such as `all`.
    pub categories: Vec<&'static str>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs served on the resource itself.
    pub verbs: Vec<&'static str>,
    /// Served subresources.
    pub subresources: Vec<Subresource>,
}

/// A subresource such as `status`, with the kind its bodies have.
#[derive(Debug, Clone, Deserialize)]
pub struct Subresource {
    /// Path segment after the object's name.
    pub name: &'static str,
    /// Group of the body's kind.
    pub group: &'static str,
    /// Version of the body's kind.
    pub version: &'static str,
    /// Kind of the body.
    pub kind: &'static str,
    /// Verbs served on it.
    pub verbs: Vec<&'static str>,
}

impl Resource {
    /// `apiVersion` of the objects: `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        join_group_version(self.group, self.version)
    }

    /// The name used in messages: `pods` or `deployments.apps`.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The kind used in messages: `Pod` or `Deployment.apps`.
    pub fn group_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// The subresource of that name, when served.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether the resource itself answers to `verb`.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects are stored (virtual review resources are only created).
    pub fn is_stored(&self) -> bool {
        self.has_verb("get")
    }
}

/// `v1` for the core group, `group/version` otherwise.
pub fn join_group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

/// Every served resource, in the order of the data file.
pub fn resources() -> &'static [Resource] {
    static RESOURCES: OnceLock<Vec<Resource>> = OnceLock::new();
    RESOURCES.get_or_init(|| {
        serde_json::from_str(include_str!("../data/resources.json"))
            .expect("data/resources.json is checked by this crate's tests")
    })
}

/// The resource that a path names.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    resources()
        .iter()
        .find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The resource whose objects have this `apiVersion` and `kind`.
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    resources()
        .iter()
        .find(|r| r.kind == kind && r.api_version() == api_version)
}

/// Whether any resource is served in that group and version.
pub fn serves_group_version(group: &str, version: &str) -> bool {
    resources()
        .iter()
        .any(|r| r.group == group && r.version == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_path_and_by_kind() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        assert_eq!(deployments.group_resource(), "deployments.apps");
        assert_eq!(deployments.api_version(), "apps/v1");
        assert_eq!(deployments.subresource("scale").unwrap().kind, "Scale");
        assert_eq!(find_kind("v1", "Pod").unwrap().plural, "pods");
        assert!(find("", "v1", "limitranges").is_none());
        assert!(
            !find("authentication.k8s.io", "v1", "tokenreviews")
                .unwrap()
                .is_stored()
        );
    }
}
