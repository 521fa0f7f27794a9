//! Why berth fails what it fails: `gaps.toml`, each entry with the sentence it stands on.

use std::fmt;

use anyhow::{Context, Result};
use serde::Deserialize;

const LIST: &str = include_str!("gaps.toml");

/// Every known gap.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gaps {
    gap: Vec<Gap>,
}

/// Tests that berth fails for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The programs it concerns.
    pub programs: Vec<String>,
    /// The tests, each by a part of its name; without, whatever fails in the programs.
    #[serde(default)]
    pub tests: Vec<String>,
    /// A few words for the table.
    pub why: String,
    /// Document and section of the runtime-spec.
    pub section: String,
    /// The sentence there that the behaviour stands on.
    pub sentence: String,
    /// What happens, and what it would take.
    pub explanation: String,
}

impl Gaps {
    /// The list that is compiled in.
    pub fn read() -> Result<Self> {
        Self::parse(LIST).context("gaps.toml")
    }

    /// Reads a list.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// The entries that concern a program.
    pub fn of<'a>(&'a self, program: &'a str) -> impl Iterator<Item = &'a Gap> {
        let concerns = move |gap: &&Gap| gap.programs.iter().any(|name| name == program);
        self.gap.iter().filter(concerns)
    }
}

impl Gap {
    /// Whether it explains a failure of the test.
    pub fn explains(&self, test: &str) -> bool {
        self.tests.is_empty() || self.tests.iter().any(|part| test.contains(part.as_str()))
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            why,
            section,
            sentence,
            explanation,
            ..
        } = self;
        write!(f, "{why}: {explanation} ({section}: \"{sentence}\")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_says_which_sentence_and_why() {
        for gap in Gaps::read().unwrap().gap {
            assert!(!gap.programs.is_empty(), "{gap:?}");
            for text in [&gap.why, &gap.section, &gap.sentence, &gap.explanation] {
                assert!(!text.trim().is_empty(), "{gap:?}");
            }
        }
    }
}
