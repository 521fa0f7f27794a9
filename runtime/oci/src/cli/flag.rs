//! What a verb's command line may hold, as data: one table serves parsing, help and completion.

use std::ffi::OsString;
use std::path::PathBuf;

/// The arguments of a verb, which start as the defaults.
pub trait Arguments: Default + 'static {
    /// The flags, in the order of the help; shared ones in a list of their own.
    const FLAGS: &'static [&'static [Flag<Self>]] = &[];
    /// What stands without a flag, in order.
    const OPERANDS: &'static [Operand<Self>] = &[];
}

/// A flag of a verb with the arguments `A`.
pub struct Flag<A: 'static> {
    /// Without its dashes.
    pub long: &'static str,
    /// One letter that means the same.
    pub short: Option<char>,
    /// What it does to the arguments.
    pub take: Take<A>,
    /// One line for the help.
    pub about: &'static str,
    /// What holds where it is not given, for the help.
    pub default: Option<&'static str>,
    /// Understood, but not shown.
    pub hidden: bool,
}

/// What a flag does to the arguments.
pub enum Take<A: 'static> {
    /// On, or with `=true` and `=false` what these say.
    Switch(fn(&mut A, bool)),
    /// Takes a value, shown under this name.
    Value(&'static str, Set<A>),
    /// Takes one of these words.
    Choice(&'static [&'static str], Set<A>),
}

/// Stores a word, or tells why it is wrong.
pub type Set<A> = fn(&mut A, OsString) -> Result<(), String>;

impl<A> Flag<A> {
    /// A flag without a value.
    pub const fn switch(long: &'static str, about: &'static str, set: fn(&mut A, bool)) -> Self {
        Self::new(long, about, Take::Switch(set))
    }

    /// A flag with a value called `name` in the help.
    pub const fn value(
        long: &'static str,
        name: &'static str,
        about: &'static str,
        set: Set<A>,
    ) -> Self {
        Self::new(long, about, Take::Value(name, set))
    }

    /// A flag whose value is one of `words`.
    pub const fn choice(
        long: &'static str,
        words: &'static [&'static str],
        about: &'static str,
        set: Set<A>,
    ) -> Self {
        Self::new(long, about, Take::Choice(words, set))
    }

    const fn new(long: &'static str, about: &'static str, take: Take<A>) -> Self {
        Flag {
            long,
            short: None,
            take,
            about,
            default: None,
            hidden: false,
        }
    }

    /// Whether it is meant by `name`, dashes included.
    pub fn is_called(&self, name: &str) -> bool {
        match name.strip_prefix("--") {
            Some(long) => long == self.long,
            None => name.chars().nth(1) == self.short && self.short.is_some(),
        }
    }

    /// Also as one letter.
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// What the help shows as default.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Understood, but not shown.
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// A word, or several, without a flag.
pub struct Operand<A: 'static> {
    /// As the help calls it.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// How often it stands.
    pub count: Count,
    /// Stores each.
    pub set: Set<A>,
}

/// How often an operand stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Once.
    One,
    /// Once or not at all.
    Optional,
    /// All that is left, flags included.
    Rest,
}

impl<A> Operand<A> {
    /// An operand that must stand.
    pub const fn one(name: &'static str, about: &'static str, set: Set<A>) -> Self {
        Self::new(name, about, Count::One, set)
    }

    /// An operand that may be left out.
    pub const fn optional(name: &'static str, about: &'static str, set: Set<A>) -> Self {
        Self::new(name, about, Count::Optional, set)
    }

    /// All words that are left.
    pub const fn rest(name: &'static str, about: &'static str, set: Set<A>) -> Self {
        Self::new(name, about, Count::Rest, set)
    }

    const fn new(name: &'static str, about: &'static str, count: Count, set: Set<A>) -> Self {
        Operand {
            name,
            about,
            count,
            set,
        }
    }
}

/// A place for a word of the command line.
pub trait Slot {
    /// Stores the word, or tells why it is wrong.
    fn put(&mut self, word: OsString) -> Result<(), String>;
}

impl Slot for PathBuf {
    fn put(&mut self, word: OsString) -> Result<(), String> {
        *self = word.into();
        Ok(())
    }
}

impl Slot for String {
    fn put(&mut self, word: OsString) -> Result<(), String> {
        let wrong = |word: OsString| format!("`{}` is not UTF-8", word.display());
        *self = word.into_string().map_err(wrong)?;
        Ok(())
    }
}

/// Numbers: signed ones take what starts with a dash, as every value does.
macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Slot for $number {
            fn put(&mut self, word: OsString) -> Result<(), String> {
                let number = word.to_str().and_then(|word| word.parse().ok());
                *self = number.ok_or_else(|| {
                    let range = concat!(stringify!($number), " number");
                    format!("`{}` is no {range}", word.display())
                })?;
                Ok(())
            }
        }
    )*};
}
numbers!(u16, u32, u64, i64);

impl<T: Slot + Default> Slot for Option<T> {
    fn put(&mut self, word: OsString) -> Result<(), String> {
        self.insert(T::default()).put(word)
    }
}

impl<T: Slot + Default> Slot for Vec<T> {
    fn put(&mut self, word: OsString) -> Result<(), String> {
        let mut one = T::default();
        one.put(word)?;
        self.push(one);
        Ok(())
    }
}
