//! What is unreferenced, decided without touching anything.

use std::collections::HashSet;

use crate::digest::Digest;

/// The layers of `all` that none of the sets needs.
pub(crate) fn unreferenced(all: Vec<Digest>, needed: &[HashSet<Digest>]) -> Vec<Digest> {
    all.into_iter()
        .filter(|item| !needed.iter().any(|set| set.contains(item)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_anything_needs_stays() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes));
        let all = vec![a.clone(), b.clone(), c.clone()];
        let needed = [HashSet::from([a]), HashSet::from([b])];
        assert_eq!(unreferenced(all, &needed), [c]);
    }
}
