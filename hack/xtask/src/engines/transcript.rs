//! What a script printed, step by step.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// What a helper of the scripts says when it gave up waiting.
const GAVE_UP: &str = "never: ";

/// Name of each step and what was printed in it.
pub struct Transcript(Vec<(String, String)>);

/// A step under two runtimes.
pub struct Compared {
    /// The step's name.
    pub name: String,
    /// The lines in which they differ, if any.
    pub difference: Option<String>,
}

impl Transcript {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("no {}", path.display()))?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Steps start with a line `## NAME`; carriage returns of terminals are left out.
    fn parse(text: &str) -> Self {
        let mut steps = vec![("start".to_owned(), String::new())];
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            if let Some(name) = line.strip_prefix("## ") {
                steps.push((name.into(), String::new()));
            } else if let Some((_, said)) = steps.last_mut() {
                said.push_str(line);
                said.push('\n');
            }
        }
        steps.retain(|(name, said)| name != "start" || !said.is_empty());
        Self(steps)
    }

    /// Each step of this transcript beside the other's. A step in which the script gave up
    /// waiting shows nothing about the other, so it never counts as equal.
    pub fn compare(&self, other: &Self) -> Vec<Compared> {
        let beside = |(name, expected): &(String, String)| {
            let found = other.0.iter().find(|(other, _)| other == name);
            let difference = match found {
                None => Some("  never came to it\n".to_owned()),
                Some((_, found)) if found != expected => Some(difference(expected, found)),
                Some(_) if expected.contains(GAVE_UP) => Some(format!("  both: {expected}")),
                Some(_) => None,
            };
            Compared {
                name: name.clone(),
                difference,
            }
        };
        self.0.iter().map(beside).collect()
    }
}

/// The lines that differ, `-` the first's, `+` the second's.
fn difference(expected: &str, found: &str) -> String {
    let told = || -> Result<String> {
        let folder = tempfile::tempdir()?;
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, expected)?;
        fs::write(&b, found)?;
        let output = process::capture(Command::new("diff").arg("-U1").args([a, b]))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().skip(2).filter(|line| !line.starts_with("@@"));
        Ok(lines.map(|line| format!("  {line}\n")).collect())
    };
    told().unwrap_or_else(|_| format!("  expected:\n{expected}  found:\n{found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_step_by_step() {
        let one = Transcript::parse("## a\nx\r\n## b\n1\n2\n## c\nnever: ready\n## d\n");
        let two = Transcript::parse("## a\nx\n## b\n1\n3\n## c\nnever: ready\n");
        let told: Vec<String> = (one.compare(&two).into_iter())
            .map(|step| format!("{} {}", step.name, step.difference.unwrap_or_default()))
            .collect();
        let expected = [
            "a ",
            "b    1\n  -2\n  +3\n",
            "c   both: never: ready\n",
            "d   never came to it\n",
        ];
        assert_eq!(told, expected);
    }
}
