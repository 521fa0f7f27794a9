//! Words of the command line → [`Cli`].

use lexopt::{Arg, Parser, ValueExt as _};

use super::flag::{Arguments, Count, Flag, Set, Take};
use super::{Cli, Command, Global, Request, VERBS};

/// Stands for the verb before there is one.
const PROGRAM: &str = "berth-oci";

/// Why a command line is wrong.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// No verb.
    #[error("a verb is missing")]
    NoVerb,
    /// No such verb.
    #[error("unknown verb `{0}`")]
    UnknownVerb(String),
    /// A flag that the verb does not have.
    #[error("unknown flag `{flag}` of `{verb}`")]
    UnknownFlag {
        /// The verb, or the program before one.
        verb: &'static str,
        /// With its dashes.
        flag: String,
    },
    /// A flag's value is missing or wrong.
    #[error("`{flag}`: {reason}")]
    BadValue {
        /// The flag, with its dashes, or the operand's name.
        flag: String,
        /// What is wrong.
        reason: String,
    },
    /// An operand is missing.
    #[error("`{verb}` needs {operand}")]
    MissingOperand {
        /// Which verb.
        verb: &'static str,
        /// The operand's name.
        operand: &'static str,
    },
    /// A word too many.
    #[error("`{verb}` does not take `{word}`")]
    SuperfluousWord {
        /// Which verb.
        verb: &'static str,
        /// The word.
        word: String,
    },
    /// A word that cannot be read.
    #[error("{0}")]
    Unreadable(#[from] lexopt::Error),
}

impl UsageError {
    /// The verb whose help serves, if one was understood.
    pub fn verb(&self) -> Option<&'static str> {
        match self {
            UsageError::UnknownFlag { verb, .. }
            | UsageError::MissingOperand { verb, .. }
            | UsageError::SuperfluousWord { verb, .. } => {
                Some(*verb).filter(|verb| *verb != PROGRAM)
            }
            _ => None,
        }
    }
}

/// Reads the words after the program's name. What stands before an error is in `global`: it says where
/// to tell it.
pub fn parse<I>(words: I, global: &mut Global) -> Result<Request, UsageError>
where
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString>,
{
    let mut parser = Parser::from_args(words);
    loop {
        let word = match parser.next()? {
            None => return Err(UsageError::NoVerb),
            Some(Arg::Value(word)) => word,
            Some(Arg::Long("version") | Arg::Short('v')) => return Ok(Request::Version),
            Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Request::Help(None)),
            Some(flag) => {
                let name = dashed(&flag);
                if !take(&name, &mut parser, global, Global::FLAGS)? {
                    return Err(UsageError::UnknownFlag {
                        verb: PROGRAM,
                        flag: name,
                    });
                }
                continue;
            }
        };
        let name = word.to_string_lossy();
        if name == "help" {
            let verb = parser.value().ok().map(|verb| verb.string()).transpose()?;
            return Ok(Request::Help(verb));
        }
        let verb = VERBS.iter().find(|verb| verb.name == name);
        let verb = verb.ok_or_else(|| UsageError::UnknownVerb(name.into_owned()))?;
        return Ok(match (verb.parse)(verb.name, &mut parser, global)? {
            Some(command) => {
                let global = std::mem::take(global);
                Request::Run(Box::new(Cli { global, command }))
            }
            None => Request::Help(Some(verb.name.to_owned())),
        });
    }
}

/// The rest of the line as the verb's arguments; nothing where help is asked for.
pub(super) fn verb<V: Arguments>(
    name: &'static str,
    parser: &mut Parser,
    global: &mut Global,
    wrap: fn(V) -> Command,
) -> Result<Option<Command>, UsageError> {
    let mut arguments = V::default();
    let mut operands = V::OPERANDS.iter().peekable();
    loop {
        if let Some(operand) = operands.next_if(|operand| operand.count == Count::Rest) {
            for word in parser.raw_args()? {
                store(operand.name, word, &mut arguments, operand.set)?;
            }
        }
        match parser.next()? {
            None => break,
            Some(Arg::Long("help") | Arg::Short('h')) => return Ok(None),
            Some(Arg::Value(word)) => {
                let operand = operands.next().ok_or_else(|| UsageError::SuperfluousWord {
                    verb: name,
                    word: word.to_string_lossy().into_owned(),
                })?;
                store(operand.name, word, &mut arguments, operand.set)?;
            }
            Some(flag) => {
                let flag = dashed(&flag);
                let known = take(&flag, parser, &mut arguments, V::FLAGS)?
                    || take(&flag, parser, global, Global::FLAGS)?;
                if !known {
                    return Err(UsageError::UnknownFlag { verb: name, flag });
                }
            }
        }
    }
    match operands.find(|operand| operand.count == Count::One) {
        Some(operand) => Err(UsageError::MissingOperand {
            verb: name,
            operand: operand.name,
        }),
        None => Ok(Some(wrap(arguments))),
    }
}

/// Lets the flag of that name, if the list has it, change the arguments.
fn take<A>(
    name: &str,
    parser: &mut Parser,
    arguments: &mut A,
    flags: &[&[Flag<A>]],
) -> Result<bool, UsageError> {
    let mut all = flags.iter().copied().flatten();
    let Some(flag) = all.find(|flag| flag.is_called(name)) else {
        return Ok(false);
    };
    let bad = |reason: String| UsageError::BadValue {
        flag: name.to_owned(),
        reason,
    };
    match &flag.take {
        // Only a long one may say `=false`: what follows a letter are more letters.
        Take::Switch(set) => match name.starts_with("--").then(|| parser.optional_value()) {
            None | Some(None) => set(arguments, true),
            Some(Some(word)) => {
                let on = word.to_str().and_then(|word| word.parse().ok());
                set(arguments, on.ok_or_else(|| bad("takes no value".into()))?);
            }
        },
        Take::Value(_, set) => store(name, parser.value()?, arguments, *set)?,
        Take::Choice(words, set) => {
            let word = parser.value()?;
            if !words.iter().any(|known| word == *known) {
                let known = words.join(", ");
                return Err(bad(format!("`{}` is none of {known}", word.display())));
            }
            store(name, word, arguments, *set)?;
        }
    }
    Ok(true)
}

fn store<A>(
    name: &str,
    word: std::ffi::OsString,
    arguments: &mut A,
    set: Set<A>,
) -> Result<(), UsageError> {
    set(arguments, word).map_err(|reason| UsageError::BadValue {
        flag: name.to_owned(),
        reason,
    })
}

fn dashed(flag: &Arg<'_>) -> String {
    match flag {
        Arg::Long(name) => format!("--{name}"),
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Value(word) => word.to_string_lossy().into_owned(),
    }
}
