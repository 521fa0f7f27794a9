//! How the objects and words of the specification are written down: as tables, from which come the
//! types, their reading and their writing.

/// A struct of public fields. Each row has a field, its type, and the member of the JSON object that
/// holds it: `required`, `optional` (left out where it says nothing), or `defaulted` (may be missing,
/// is always written).
macro_rules! object {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $kind:ty = $presence:ident $key:literal,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }

        impl $crate::spec::config::Field for $name {
            fn read<'n>(
                node: &'n $crate::spec::config::Node<'n>,
                reader: &mut $crate::spec::config::Reader<'n>,
            ) -> Self {
                const KEYS: &[&str] = &[$($key),*];
                let mut slots = [None; KEYS.len()];
                if !reader.members(node, KEYS, &mut slots) {
                    return Self::default();
                }
                let mut slots = slots.into_iter();
                $name {
                    $($field: reader.$presence($key, slots.next().flatten()),)*
                }
            }

            fn node(&self) -> $crate::spec::config::Node<'_> {
                let mut members = Vec::new();
                $($crate::spec::config::read::$presence(&mut members, $key, &self.$field);)*
                $crate::spec::config::Node::Object(members)
            }
        }

        /// What the specification does not know is passed over.
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let node = $crate::spec::config::Node::deserialize(from)?;
                let read = $crate::spec::config::read::whole(&node);
                read.map(|(value, _)| value).map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                $crate::spec::config::Field::node(self).serialize(to)
            }
        }
    )*};
}

/// An enum of the words that the specification has for a member.
macro_rules! words {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// The words, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),*];
            const ALL: &'static [$name] = &[$($name::$variant),*];

            /// Its word.
            pub fn word(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }

        /// The first: it stands in for what could not be read, which is an error.
        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::spec::config::Field for $name {
            fn read<'n>(
                node: &'n $crate::spec::config::Node<'n>,
                reader: &mut $crate::spec::config::Reader<'n>,
            ) -> Self {
                Self::ALL[reader.word(node, Self::WORDS)]
            }

            fn node(&self) -> $crate::spec::config::Node<'_> {
                $crate::spec::config::Node::Text(self.word().into())
            }
        }
    )*};
}

pub(super) use {object, words};
