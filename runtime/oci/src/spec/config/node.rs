//! A JSON text as a tree that keeps what a document says: every member, doubled ones too, in order,
//! and integers exactly. Text is borrowed where it has no escapes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// One value. Nesting is bounded by serde_json, at 128.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    /// Has a fraction or an exponent, or does not fit the others.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Members<'a>),
}

/// The members of an object, in the text's order.
pub(crate) type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

impl Node<'_> {
    /// What it is, for an error.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "a boolean",
            Node::Unsigned(_) | Node::Negative(_) => "an integer",
            Node::Float(_) => "a number that is no integer",
            Node::Text(_) => "a string",
            Node::List(_) => "a list",
            Node::Object(_) => "an object",
        }
    }
}

impl<'a> Node<'a> {
    /// This with the members of `change` put in, object by object; whatever else both have, `change` has it.
    pub(crate) fn merged(self, change: Node<'a>) -> Node<'a> {
        let (mut members, changes) = match (self, change) {
            (Node::Object(members), Node::Object(changes)) => (members, changes),
            (_, change) => return change,
        };
        for (key, value) in changes {
            match members.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => {
                    *old = std::mem::replace(old, Node::Null).merged(value);
                }
                None => members.push((key, value)),
            }
        }
        Node::Object(members)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Node<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(u64::try_from(value).map_or(Node::Negative(value), Node::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(text.to_owned().into()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Node<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = from.next_element()? {
            all.push(one);
        }
        Ok(Node::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Node<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = from.next_entry::<Node<'de>, Node<'de>>()? {
            if let Node::Text(key) = key {
                members.push((key, value));
            }
        }
        Ok(Node::Object(members))
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => to.serialize_unit(),
            Node::Bool(value) => to.serialize_bool(*value),
            Node::Unsigned(value) => to.serialize_u64(*value),
            Node::Negative(value) => to.serialize_i64(*value),
            Node::Float(value) => to.serialize_f64(*value),
            Node::Text(text) => to.serialize_str(text),
            Node::List(all) => {
                let mut list = to.serialize_seq(Some(all.len()))?;
                all.iter().try_for_each(|one| list.serialize_element(one))?;
                list.end()
            }
            Node::Object(members) => {
                let mut object = to.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    object.serialize_entry(key.as_ref(), value)?;
                }
                object.end()
            }
        }
    }
}
