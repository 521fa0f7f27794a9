//! downwardAPI: fields of the pod as files.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Pod};

use super::SourceError;
use super::items::mode;
use crate::pod::field::{Surroundings, field_value, resource_value};
use crate::volume::populate::{Content, Payload, relative};

/// The files of the items; `default_mode` for those that name none.
pub fn payload(
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    around: &Surroundings,
) -> Result<Payload, SourceError> {
    let mut payload = Payload::new();
    for item in items {
        let path = relative(&item.path).ok_or_else(|| SourceError::Path(item.path.clone()))?;
        let content = Content {
            data: value(pod, item, around)?.into_bytes(),
            mode: mode(item.mode, default_mode),
        };
        payload.insert(path, content);
    }
    Ok(payload)
}

fn value(
    pod: &Pod,
    item: &DownwardAPIVolumeFile,
    around: &Surroundings,
) -> Result<String, SourceError> {
    if let Some(field) = &item.field_ref {
        let path = field.field_path.as_str();
        // Of a running pod only its metadata may change a file (API, DownwardAPIVolumeFile).
        let found = path.starts_with("metadata.").then_some(());
        let found = found.and_then(|()| field_value(pod, path, around));
        return found.ok_or_else(|| SourceError::Field(path.to_owned()));
    }
    let Some(resource) = &item.resource_field_ref else {
        return Err(SourceError::Field(item.path.clone()));
    };
    let container = resource.container_name.as_deref().unwrap_or_default();
    crate::pod::container(pod, container)
        .and_then(|container| resource_value(container, resource, around))
        .ok_or_else(|| SourceError::Field(resource.resource.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn fields_become_files() {
        let mut pod = pod("containers: [{name: c, resources: {limits: {memory: 64Mi}}}]");
        pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
        let around = Surroundings::default();
        let run = |items: &str| {
            let items: Vec<DownwardAPIVolumeFile> = serde_yaml_ng::from_str(items).unwrap();
            payload(&pod, &items, 0o644, &around)
        };
        let files = run("[{path: labels, fieldRef: {fieldPath: metadata.labels}},
            {path: d/ns, mode: 256, fieldRef: {fieldPath: metadata.namespace}},
            {path: mem, resourceFieldRef:
                {containerName: c, resource: limits.memory, divisor: 1Mi}}]")
        .unwrap();
        let shown: Vec<String> = files
            .iter()
            .map(|(path, c)| {
                let data = String::from_utf8_lossy(&c.data);
                format!("{} {data} {:o}", path.display(), c.mode)
            })
            .collect();
        assert_eq!(
            shown,
            ["d/ns default 400", "labels app=\"web\" 644", "mem 64 644"]
        );
        for wrong in [
            "[{path: a, fieldRef: {fieldPath: status.podIP}}]",
            "[{path: a, fieldRef: {fieldPath: metadata.none}}]",
            "[{path: ../a, fieldRef: {fieldPath: metadata.name}}]",
            "[{path: a, resourceFieldRef: {containerName: x, resource: limits.cpu}}]",
            "[{path: a}]",
        ] {
            assert!(run(wrong).is_err(), "{wrong}");
        }
    }
}
