//! From a tree to values and back. What cannot be read is noted under its JSON path and a default
//! stands in, so that one reading finds everything that is wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use super::node::{Members, Node};
use crate::spec::{SpecError, SpecErrors};

/// A value of a configuration.
pub(crate) trait Field: Default {
    /// The value of `node`.
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self;

    /// The tree of this value.
    fn node(&self) -> Node<'_>;

    /// Whether it says nothing, so that an optional member is left out, as Go's `omitempty` does.
    fn is_absent(&self) -> bool {
        false
    }
}

/// Where a reading is, and what it has found.
#[derive(Debug, Default)]
pub(crate) struct Reader<'n> {
    path: Vec<Step<'n>>,
    errors: Vec<SpecError>,
    /// JSON paths of members that no specification has.
    pub(crate) unknown: Vec<String>,
    /// Names of capabilities that nobody knows, each once.
    pub(crate) capabilities: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'n> {
    Member(&'n str),
    Element(usize),
}

/// The value of a whole document, and what of it was left out.
///
/// # Errors
/// Members given twice, wherever they are, missing ones, and values of a wrong type or that are none
/// of the words that the specification has for a member: all of them, each with its path.
pub(crate) fn whole<'n, T: Field>(node: &'n Node<'n>) -> Result<(T, Reader<'n>), SpecErrors> {
    let mut reader = Reader::default();
    if has_doubles(node) {
        reader.note_doubles(node);
    }
    let value = T::read(node, &mut reader);
    if reader.errors.is_empty() {
        return Ok((value, reader));
    }
    Err(SpecErrors(reader.errors))
}

impl<'n> Reader<'n> {
    /// Notes an error here.
    pub(super) fn note(&mut self, message: String) {
        let path = self.place();
        self.errors.push(SpecError { path, message });
    }

    fn note_kind(&mut self, node: &Node<'_>, wanted: &str) {
        self.note(format!("is {}, not {wanted}", node.kind()));
    }

    fn place(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Member(key) if out.is_empty() => out.push_str(key),
                Step::Member(key) => {
                    out.push('.');
                    out.push_str(key);
                }
                Step::Element(index) => {
                    let _ = write!(out, "[{index}]"); // writing to a string cannot fail
                }
            }
        }
        out
    }

    fn at<T>(&mut self, step: Step<'n>, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        value
    }

    /// Of two members of one name different readers take different ones, so there must be none.
    fn note_doubles(&mut self, node: &'n Node<'n>) {
        match node {
            Node::List(all) => {
                for (index, one) in all.iter().enumerate() {
                    self.at(Step::Element(index), |reader| reader.note_doubles(one));
                }
            }
            Node::Object(members) => {
                for key in doubles(members) {
                    self.at(Step::Member(key), |reader| {
                        reader.note("is given twice".into());
                    });
                }
                for (key, one) in members {
                    self.at(Step::Member(key), |reader| reader.note_doubles(one));
                }
            }
            _ => {}
        }
    }

    /// Puts the members of an object into `slots`, in the order of `keys`; false where it is none.
    pub(super) fn members(
        &mut self,
        node: &'n Node<'n>,
        keys: &[&str],
        slots: &mut [Option<&'n Node<'n>>],
    ) -> bool {
        let Node::Object(members) = node else {
            self.note_kind(node, "an object");
            return false;
        };
        for (key, value) in members {
            match keys.iter().position(|known| known == key) {
                Some(_) if *value == Node::Null => {} // as if it were not there, as Go has it
                Some(index) => slots[index] = Some(value),
                None => {
                    let path = self.at(Step::Member(key), |reader| reader.place());
                    self.unknown.push(path);
                }
            }
        }
        true
    }

    /// A member that must be there.
    pub(super) fn required<T: Field>(&mut self, key: &'n str, slot: Option<&'n Node<'n>>) -> T {
        if slot.is_none() {
            self.at(Step::Member(key), |reader| {
                reader.note("is missing".into());
            });
        }
        self.optional(key, slot)
    }

    /// A member that may be missing.
    pub(super) fn optional<T: Field>(&mut self, key: &'n str, slot: Option<&'n Node<'n>>) -> T {
        match slot {
            Some(node) => self.at(Step::Member(key), |reader| T::read(node, reader)),
            None => T::default(),
        }
    }

    /// As [`Reader::optional`]: only the writer tells a member with a default from one that may be missing.
    pub(super) fn defaulted<T: Field>(&mut self, key: &'n str, slot: Option<&'n Node<'n>>) -> T {
        self.optional(key, slot)
    }

    pub(super) fn text(&mut self, node: &'n Node<'n>) -> &'n str {
        let Node::Text(text) = node else {
            self.note_kind(node, "a string");
            return "";
        };
        text
    }

    fn integer(&mut self, node: &Node<'_>, least: i64, most: u64) -> i128 {
        let value = match node {
            Node::Unsigned(value) => i128::from(*value),
            Node::Negative(value) => i128::from(*value),
            _ => {
                self.note_kind(node, "an integer");
                return 0;
            }
        };
        if value < i128::from(least) || value > i128::from(most) {
            self.note(format!("{value} is not within {least} … {most}"));
            return 0;
        }
        value
    }

    /// The number of a word in a list.
    pub(super) fn word(&mut self, node: &'n Node<'n>, words: &[&str]) -> usize {
        let Node::Text(text) = node else {
            self.note_kind(node, "a string");
            return 0;
        };
        let found = words.iter().position(|word| word == text);
        found.unwrap_or_else(|| {
            self.note(format!("`{text}` is not one of {}", words.join(", ")));
            0
        })
    }
}

/// Up to so many members are compared one with another, more are sorted.
const FEW: usize = 16;

fn has_doubles(node: &Node<'_>) -> bool {
    match node {
        Node::List(all) => all.iter().any(has_doubles),
        Node::Object(members) => {
            let again = |index: usize| is_again(members, index);
            let here = match members.len() {
                0..=FEW => (1..members.len()).any(again),
                _ => !doubles(members).is_empty(),
            };
            here || members.iter().any(|(_, one)| has_doubles(one))
        }
        _ => false,
    }
}

/// Whether one of the members before that one has its name.
fn is_again(members: &Members<'_>, index: usize) -> bool {
    let name = &members[index].0;
    members[..index].iter().any(|(other, _)| other == name)
}

fn doubles<'n>(members: &'n Members<'n>) -> Vec<&'n str> {
    let keys = members.iter().map(|(key, _)| key.as_ref());
    if members.len() <= FEW {
        let again = |(index, _): &(usize, &str)| is_again(members, *index);
        return keys.enumerate().filter(again).map(|(_, key)| key).collect();
    }
    let mut sorted: Vec<&str> = keys.collect();
    sorted.sort_unstable();
    let same = sorted.windows(2).filter(|pair| pair[0] == pair[1]);
    same.map(|pair| pair[0]).collect()
}

/// Puts a member into an object's tree.
pub(super) fn required<'a, T: Field>(into: &mut Members<'a>, key: &'static str, value: &'a T) {
    into.push((Cow::Borrowed(key), value.node()));
}

/// As [`required`].
pub(super) fn defaulted<'a, T: Field>(into: &mut Members<'a>, key: &'static str, value: &'a T) {
    required(into, key, value);
}

/// As [`required`], unless it says nothing.
pub(super) fn optional<'a, T: Field>(into: &mut Members<'a>, key: &'static str, value: &'a T) {
    if !value.is_absent() {
        required(into, key, value);
    }
}

impl Field for bool {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let Node::Bool(value) = node else {
            reader.note_kind(node, "a boolean");
            return false;
        };
        *value
    }

    fn node(&self) -> Node<'_> {
        Node::Bool(*self)
    }

    fn is_absent(&self) -> bool {
        !*self
    }
}

macro_rules! integers {
    ($($kind:ident),*) => {$(
        impl Field for $kind {
            fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
                reader.integer(node, $kind::MIN as i64, $kind::MAX as u64) as $kind
            }

            fn node(&self) -> Node<'_> {
                u64::try_from(*self).map_or(Node::Negative(*self as i64), Node::Unsigned)
            }
        }
    )*};
}

integers!(u16, u32, u64, i32, i64);

impl Field for String {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        reader.text(node).to_owned()
    }

    fn node(&self) -> Node<'_> {
        Node::Text(Cow::Borrowed(self))
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl Field for PathBuf {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        reader.text(node).into()
    }

    fn node(&self) -> Node<'_> {
        Node::Text(self.to_string_lossy())
    }

    fn is_absent(&self) -> bool {
        self.as_os_str().is_empty()
    }
}

impl<T: Field> Field for Option<T> {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        Some(T::read(node, reader))
    }

    fn node(&self) -> Node<'_> {
        self.as_ref().map_or(Node::Null, T::node)
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Field> Field for Vec<T> {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let Node::List(all) = node else {
            reader.note_kind(node, "a list");
            return Vec::new();
        };
        let mut out = Vec::with_capacity(all.len());
        for (index, one) in all.iter().enumerate() {
            out.push(reader.at(Step::Element(index), |reader| T::read(one, reader)));
        }
        out
    }

    fn node(&self) -> Node<'_> {
        Node::List(self.iter().map(T::node).collect())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn read<'n>(node: &'n Node<'n>, reader: &mut Reader<'n>) -> Self {
        let Node::Object(members) = node else {
            reader.note_kind(node, "an object");
            return BTreeMap::new();
        };
        let mut out = BTreeMap::new();
        for (key, one) in members {
            let value = reader.at(Step::Member(key), |reader| T::read(one, reader));
            out.insert(key.to_string(), value);
        }
        out
    }

    fn node(&self) -> Node<'_> {
        let members = self.iter().map(|(key, value)| (key.into(), value.node()));
        Node::Object(members.collect())
    }

    fn is_absent(&self) -> bool {
        self.is_empty()
    }
}
