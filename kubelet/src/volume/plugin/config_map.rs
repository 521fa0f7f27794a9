//! configMap: the keys of a ConfigMap as files.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath};

use super::SourceError;
use super::items::{Selection, select};
use crate::objects::Objects;
use crate::volume::populate::Payload;

/// The files of the ConfigMap `namespace/name`.
pub async fn payload(
    objects: &Objects,
    (namespace, name): (&str, &str),
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: Option<bool>,
) -> Result<Payload, SourceError> {
    let optional = optional == Some(true);
    let data = match objects.config_map(namespace, name).await? {
        Some(found) => data_of(found),
        None if optional => return Ok(Payload::new()),
        None => return Err(SourceError::NoConfigMap(name.to_owned())),
    };
    let selection = Selection {
        items: items.unwrap_or_default(),
        mode,
        optional,
    };
    select(&data, selection, SourceError::NoConfigKey)
}

fn data_of(found: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = found.data.unwrap_or_default().into_iter();
    let binary = found.binary_data.unwrap_or_default().into_iter();
    text.map(|(key, value)| (key, value.into_bytes()))
        .chain(binary.map(|(key, value)| (key, value.0)))
        .collect()
}
