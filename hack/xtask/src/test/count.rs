//! Counting what test programs print.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed, failed, and could not run here.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

impl Count {
    /// Reads libtest's output with `--show-output`. A test that printed
    /// `skipped: reason` passed in libtest's eyes and is counted as skipped.
    /// `None` when there is no summary: the program died.
    pub fn of_libtest(output: &str) -> Option<Self> {
        let mut count = Self::default();
        let mut summaries = 0;
        for line in output.lines() {
            if let Some(summary) = line.strip_prefix("test result: ") {
                summaries += 1;
                count.passed += number_before(summary, " passed");
                count.failed += number_before(summary, " failed");
                count.skipped += number_before(summary, " ignored");
            }
        }
        let skipped = skip_reasons(output).len().min(count.passed);
        count.passed -= skipped;
        count.skipped += skipped;
        (summaries > 0).then_some(count)
    }

    /// Reads a last line of three counts.
    pub fn of_last_line(output: &str) -> Option<Self> {
        let line = output.lines().next_back()?;
        let whole = Self {
            passed: number_before(line, " passed"),
            failed: number_before(line, " failed"),
            skipped: number_before(line, " skipped"),
        };
        (whole.to_string() == line).then_some(whole)
    }

    /// Reads the last line of the tour.
    pub fn of_smoke(output: &str) -> Option<Self> {
        let line = output
            .lines()
            .rev()
            .find(|line| line.starts_with("smoke: "))?;
        let passed = number_before(line, " steps passed");
        let failed = number_before(line, " failed");
        let leaked = !line.contains("leaks 0");
        let skipped = skip_reasons(output).len();
        Some(Self {
            passed,
            failed: failed + usize::from(leaked),
            skipped,
        })
    }
}

/// Why tests did not run, one reason a test.
pub fn skip_reasons(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| line.strip_prefix("skipped: "))
        .collect()
}

/// The number that stands directly before `word`.
fn number_before(text: &str, word: &str) -> usize {
    let before = text
        .split(word)
        .next()
        .filter(|before| before.len() < text.len());
    let digits = before.and_then(|b| b.rsplit(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_not_a_pass() {
        let output = "running 3 tests\ntest a ... ok\n---- b stdout ----\nskipped: no AppArmor\n\
                      test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
        let count = Count::of_libtest(output).unwrap();
        assert_eq!(count.to_string(), "2 passed, 0 failed, 2 skipped");
        assert_eq!(Count::of_libtest("Segmentation fault"), None);
    }

    #[test]
    fn a_last_line_is_read_back() {
        let count = Count::of_last_line("  fail x\n12 passed, 1 failed, 3 skipped\n");
        assert_eq!(count.unwrap().to_string(), "12 passed, 1 failed, 3 skipped");
        assert_eq!(Count::of_last_line("12 passed, and a panic"), None);
    }

    #[test]
    fn a_leak_is_a_failure() {
        let count = |text| Count::of_smoke(text).unwrap().to_string();
        assert_eq!(
            count("x\nsmoke: 48 steps passed, leaks 0\n"),
            "48 passed, 0 failed, 0 skipped"
        );
        let text = "skipped: OOM: no controllers\nsmoke: 40 steps passed, 2 failed, leaks 3";
        assert_eq!(count(text), "40 passed, 3 failed, 1 skipped");
    }
}
