//! What list filters have in common.

use std::collections::HashMap;

/// Whether every wanted label is there with its value.
pub fn labels(wanted: &HashMap<String, String>, present: &HashMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| present.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wanted_labels_must_be_there() {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect::<HashMap<_, _>>()
        };
        let present = map(&[("app", "web"), ("tier", "front")]);
        assert!(labels(&map(&[]), &present));
        assert!(labels(&map(&[("app", "web")]), &present));
        assert!(!labels(&map(&[("app", "db")]), &present));
        assert!(!labels(&map(&[("app", "web"), ("zone", "a")]), &present));
    }
}
