//! Roles as data (`data/roles.json`): the rules of the stock server's default cluster roles,
//! plus what its controllers read through their process's shared identity.

use std::{collections::HashMap, sync::OnceLock};

use serde::{Deserialize, Serialize};

use crate::request::Attributes;

/// `rbac.authorization.k8s.io/v1` `PolicyRule`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_names: Vec<String>,
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    non_resource_urls: Vec<String>,
}

fn roles() -> &'static HashMap<String, Vec<Rule>> {
    static ROLES: OnceLock<HashMap<String, Vec<Rule>>> = OnceLock::new();
    ROLES.get_or_init(|| {
        serde_json::from_str(include_str!("../../data/roles.json"))
            .expect("data/roles.json is checked by this module's tests")
    })
}

/// The rules of these roles.
pub(super) fn rules(names: &[String]) -> impl Iterator<Item = &'static Rule> {
    names.iter().filter_map(|name| roles().get(name)).flatten()
}

/// Every verb on every resource and every path.
pub(super) fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = Rule {
        api_groups: all(),
        resources: all(),
        verbs: all(),
        ..Rule::default()
    };
    let paths = Rule {
        non_resource_urls: all(),
        verbs: all(),
        ..Rule::default()
    };
    [resources, paths]
}

/// Whether one of the roles allows the request.
pub(super) fn allow(names: &[String], attributes: &Attributes) -> bool {
    rules(names).any(|rule| rule.allows(attributes))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// Whether it names resources, not paths.
    pub(super) fn is_about_resources(&self) -> bool {
        !self.resources.is_empty()
    }

    fn allows(&self, attributes: &Attributes) -> bool {
        if !has(&self.verbs, attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.non_resource_urls.iter().any(|url| {
                url.strip_suffix('*')
                    .map_or(*url == attributes.path, |prefix| {
                        attributes.path.starts_with(prefix)
                    })
            });
        }
        has(&self.api_groups, &attributes.group)
            && has(&self.resources, &attributes.resource_and_subresource())
            && (self.resource_names.is_empty() || self.resource_names.contains(&attributes.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(verb: &'static str, group: &str, resource: &str) -> Attributes {
        Attributes {
            verb,
            is_resource: true,
            group: group.into(),
            resource: resource.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn rules_allow_what_they_name_and_nothing_else() {
        let deployment = ["system:controller:deployment-controller".to_owned()];
        assert!(allow(&deployment, &ask("create", "apps", "replicasets")));
        assert!(!allow(&deployment, &ask("create", "", "pods")));
        assert!(!allow(&deployment, &ask("get", "", "secrets")));
        let discovery = ["system:discovery".to_owned()];
        let path = |path: &str| Attributes {
            verb: "get",
            path: path.into(),
            ..Attributes::default()
        };
        assert!(allow(&discovery, &path("/openapi/v3/api/v1")));
        assert!(!allow(&discovery, &path("/metrics")));
    }
}
