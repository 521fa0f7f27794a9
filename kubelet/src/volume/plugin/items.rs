//! Keys of an object to files of a volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::KeyToPath;

use super::SourceError;
use crate::volume::populate::{Content, Payload, relative};

/// Mode of files whose volume names none (`defaultMode`, 0644).
pub const DEFAULT_MODE: u32 = 0o644;

/// `items` and `defaultMode`.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Which keys go where; none means every key to the file of its name.
    pub items: &'a [KeyToPath],
    /// Mode of files whose item names none.
    pub mode: u32,
    /// A key that is not there is left out.
    pub optional: bool,
}

/// The mode of the API as permission bits.
pub fn mode(given: Option<i32>, default: u32) -> u32 {
    given
        .and_then(|mode| u32::try_from(mode).ok())
        .map_or(default, |mode| mode & 0o777)
}

/// The files that `selection` makes of `data`; `missing` names a key that is not there.
pub fn select(
    data: &BTreeMap<String, Vec<u8>>,
    selection: Selection<'_>,
    missing: fn(String) -> SourceError,
) -> Result<Payload, SourceError> {
    let mut payload = Payload::new();
    let mut add = |path: &str, data: &Vec<u8>, mode| {
        let at = relative(path).ok_or_else(|| SourceError::Path(path.to_owned()))?;
        let data = data.clone();
        payload.insert(at, Content { data, mode });
        Ok::<(), SourceError>(())
    };
    if selection.items.is_empty() {
        for (key, content) in data {
            add(key, content, selection.mode)?;
        }
        return Ok(payload);
    }
    for item in selection.items {
        match data.get(&item.key) {
            Some(content) => add(&item.path, content, mode(item.mode, selection.mode))?,
            None if selection.optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_rename_and_set_modes() {
        let data: BTreeMap<String, Vec<u8>> =
            [("a".into(), b"1".to_vec()), ("b".into(), b"2".to_vec())].into();
        let item = |key: &str, path: &str, mode| KeyToPath {
            key: key.into(),
            path: path.into(),
            mode,
        };
        let run = |items: &[KeyToPath], optional| {
            let selection = Selection {
                items,
                mode: 0o644,
                optional,
            };
            let files = select(&data, selection, SourceError::NoConfigKey)?;
            let shown = |(path, c): (std::path::PathBuf, Content)| {
                format!("{}:{:o}", path.display(), c.mode)
            };
            Ok::<_, SourceError>(files.into_iter().map(shown).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(run(&[], false).unwrap(), "a:644 b:644");
        let items = [item("a", "x/y", Some(0o400)), item("b", "z", None)];
        assert_eq!(run(&items, false).unwrap(), "x/y:400 z:644");
        let lacking = [item("a", "a", None), item("c", "c", None)];
        assert_eq!(run(&lacking, true).unwrap(), "a:644");
        let error = run(&lacking, false).unwrap_err().to_string();
        assert_eq!(error, "configmap references non-existent config key: c");
        assert!(run(&[item("a", "../x", None)], false).is_err());
    }
}
