//! projected: several sources in one volume, a service account token among them.

use k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource, VolumeProjection};

use super::items::{DEFAULT_MODE, mode};
use super::{SourceError, config_map, downward_api, secret};
use crate::pod::namespace;
use crate::volume::Volumes;
use crate::volume::populate::{Content, Payload, relative};

/// Mode of a token in a pod with an fsGroup, which then lets the group read it.
const GROUP_TOKEN_MODE: u32 = 0o600;

/// The files of all sources; of two with the same path the later counts.
pub async fn payload(
    volumes: &Volumes,
    pod: &Pod,
    source: &ProjectedVolumeSource,
) -> Result<Payload, SourceError> {
    let default = mode(source.default_mode, DEFAULT_MODE);
    let mut payload = Payload::new();
    for projection in source.sources.iter().flatten() {
        payload.extend(one(volumes, pod, projection, default).await?);
    }
    Ok(payload)
}

async fn one(
    volumes: &Volumes,
    pod: &Pod,
    projection: &VolumeProjection,
    default: u32,
) -> Result<Payload, SourceError> {
    let (objects, ns) = (&volumes.objects, namespace(pod));
    if let Some(s) = &projection.config_map {
        let items = s.items.as_deref();
        return config_map::payload(objects, (ns, &s.name), items, default, s.optional).await;
    }
    if let Some(s) = &projection.secret {
        let items = s.items.as_deref();
        return secret::payload(objects, (ns, &s.name), items, default, s.optional).await;
    }
    if let Some(s) = &projection.downward_api {
        let items = s.items.as_deref().unwrap_or_default();
        return downward_api::payload(pod, items, default, &volumes.around);
    }
    let Some(s) = &projection.service_account_token else {
        return Err(SourceError::Unsupported);
    };
    let path = relative(&s.path).ok_or_else(|| SourceError::Path(s.path.clone()))?;
    let group = crate::volume::desired::fs_group(pod);
    let content = Content {
        data: volumes.tokens.get(pod, s).await?.into_bytes(),
        mode: group.map_or(default, |_| GROUP_TOKEN_MODE),
    };
    Ok(Payload::from([(path, content)]))
}
