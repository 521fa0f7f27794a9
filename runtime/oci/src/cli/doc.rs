//! The tables of [`super::flag`] without their types: what help and completion show.

use super::flag::{Arguments, Count, Flag, Operand, Take};

/// What is told of a flag.
pub struct FlagDoc {
    /// Without its dashes.
    pub long: &'static str,
    /// One letter that means the same.
    pub short: Option<char>,
    /// Name of its value.
    pub value: Option<&'static str>,
    /// The values it takes, where they are few.
    pub choices: &'static [&'static str],
    /// One line.
    pub about: &'static str,
    /// What holds without it.
    pub default: Option<&'static str>,
}

/// What is told of an operand.
pub struct OperandDoc {
    /// Its name.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// How often it stands.
    pub count: Count,
}

/// The flags of these arguments, without the hidden ones.
pub fn flags<A: Arguments>() -> Vec<FlagDoc> {
    let all = A::FLAGS.iter().copied().flatten();
    all.filter(|flag| !flag.hidden).map(flag).collect()
}

/// The operands of these arguments.
pub fn operands<A: Arguments>() -> Vec<OperandDoc> {
    A::OPERANDS.iter().map(operand).collect()
}

fn flag<A>(flag: &Flag<A>) -> FlagDoc {
    let (value, choices): (_, &[_]) = match flag.take {
        Take::Switch(_) => (None, &[]),
        Take::Value(name, _) => (Some(name), &[]),
        Take::Choice(words, _) => (Some("WORD"), words),
    };
    FlagDoc {
        long: flag.long,
        short: flag.short,
        value,
        choices,
        about: flag.about,
        default: flag.default,
    }
}

fn operand<A>(operand: &Operand<A>) -> OperandDoc {
    OperandDoc {
        name: operand.name,
        about: operand.about,
        count: operand.count,
    }
}
