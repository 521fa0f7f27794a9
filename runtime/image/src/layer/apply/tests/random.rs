//! Layers made at random from names that have hurt others.

use proptest::prelude::*;

use super::Place;
use crate::testing::archive::{Entry, device, dir, file, hardlink, symlink};
use crate::testing::is_root;

const NAMES: [&str; 16] = [
    "a",
    "b",
    "a/b",
    "b/a",
    "a/b/a",
    "./a",
    "/a",
    "a/",
    "../host",
    "a/../b",
    ".wh.a",
    "a/.wh.b",
    ".wh..wh..opq",
    "b/.wh..wh..opq",
    ".wh...",
    "",
];
const TARGETS: [&str; 10] = [
    "a",
    "b",
    "/",
    "..",
    "../host/etc",
    "/etc",
    "a/b",
    ".",
    "/proc/self/root",
    "../../../..",
];

fn entry() -> impl Strategy<Value = Entry> {
    (
        0..6u8,
        prop::sample::select(&NAMES[..]),
        prop::sample::select(&TARGETS[..]),
    )
        .prop_map(|(kind, name, target)| match kind {
            0 => dir(name),
            1 => file(name, "x"),
            2 => symlink(name, target),
            3 => hardlink(name, target),
            4 => device(name, b'3', 0, 0),
            _ => file("short", "x").pax("path", name.as_bytes()),
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// `Place::apply` compares what lies outside with what was there before.
    #[test]
    fn root_random_layers_stay_inside(entries in prop::collection::vec(entry(), 0..12)) {
        if is_root() {
            let place = Place::new();
            let first = place.apply(&entries, Vec::new());
            let second = Place::new().apply(&entries, Vec::new());
            prop_assert_eq!(first.is_ok(), second.is_ok());
            if let (Ok(first), Ok(second)) = (first, second) {
                prop_assert_eq!(first, second);
            }
        }
    }
}
