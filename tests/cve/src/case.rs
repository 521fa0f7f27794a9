//! What a case is, and what it can find.

use berth_test_harness::Need;

use crate::arena::Arena;

/// One attack.
#[derive(Clone, Copy)]
pub struct Case {
    /// A short name, unique.
    pub name: &'static str,
    /// Identifiers of the weaknesses, or of the invariant, that it is about.
    pub ids: &'static [&'static str],
    /// What it does and demands, in a sentence.
    pub what: &'static str,
    /// What it needs of the machine.
    pub needs: &'static [Need],
    /// The attack.
    pub run: fn(&Arena) -> anyhow::Result<Verdict>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The runtime is immune, as far as was observed.
    Pass(
        /// How much was tried.
        String,
    ),
    /// It is not.
    Fail(
        /// What was observed.
        String,
    ),
    /// The case cannot be had here, or has no object in this runtime.
    Skipped(
        /// Why.
        String,
    ),
}

impl Verdict {
    /// The word that stands in tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Fail(_) => "fail",
            Self::Skipped(_) => "skipped",
        }
    }

    /// What it says beside the word.
    pub fn detail(&self) -> &str {
        match self {
            Self::Pass(text) | Self::Fail(text) | Self::Skipped(text) => text,
        }
    }
}

/// Collects what an attack achieved.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    wrong: Vec<String>,
    made: usize,
    refused: usize,
}

/// How many findings are told.
const TOLD: usize = 3;

impl Findings {
    /// Something the attack must not achieve.
    pub(crate) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// As [`Findings::wrong`], where `holds` is what must be.
    pub(crate) fn demand(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong(otherwise());
        }
    }

    /// A process that the runtime made in spite of the attack.
    pub(crate) fn made(&mut self) {
        self.made += 1;
    }

    /// A process that it refused to make.
    pub(crate) fn refused(&mut self) {
        self.refused += 1;
    }

    /// Whether nothing was made: then some attacks have not begun.
    pub(crate) fn nothing_made(&self) -> bool {
        self.made == 0
    }

    /// The verdict.
    pub(crate) fn verdict(self) -> Verdict {
        if self.wrong.is_empty() {
            return Verdict::Pass(format!("{} made, {} refused", self.made, self.refused));
        }
        let more = self.wrong.len().saturating_sub(TOLD);
        let mut text = self.wrong[..self.wrong.len() - more].join("; ");
        if more > 0 {
            text.push_str(&format!("; and {more} more"));
        }
        Verdict::Fail(text)
    }
}
