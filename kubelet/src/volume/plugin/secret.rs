//! secret: the keys of a Secret as files, kept in memory.

use k8s_openapi::api::core::v1::KeyToPath;

use super::SourceError;
use super::items::{Selection, select};
use crate::objects::Objects;
use crate::volume::populate::Payload;

/// The files of the Secret `namespace/name`.
pub async fn payload(
    objects: &Objects,
    (namespace, name): (&str, &str),
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: Option<bool>,
) -> Result<Payload, SourceError> {
    let optional = optional == Some(true);
    let data = match objects.secret(namespace, name).await? {
        Some(found) => found.data.unwrap_or_default(),
        None if optional => return Ok(Payload::new()),
        None => return Err(SourceError::NoSecret(name.to_owned())),
    };
    let data = data
        .into_iter()
        .map(|(key, value)| (key, value.0))
        .collect();
    let selection = Selection {
        items: items.unwrap_or_default(),
        mode,
        optional,
    };
    select(&data, selection, SourceError::NoSecretKey)
}
