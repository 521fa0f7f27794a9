//! What a validation program says (Test Anything Protocol), as far as they speak it.

use std::collections::BTreeMap;

/// Stands for the program's own end.
pub const EXIT: &str = "the program ends with code 0";

/// A test's name within its program, and which one of that name.
pub type Test = (String, usize);

/// The tests that ran, and whether each passed. Skipped ones are not in it.
///
/// Only lines at the margin count: the report of a program that ran inside a container is
/// repeated, indented, in a diagnosis.
pub fn results(output: &str, code: Option<i32>) -> BTreeMap<Test, bool> {
    let mut results = BTreeMap::new();
    for line in output.lines() {
        let (passed, rest) = match line.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => match line.strip_prefix("ok ") {
                Some(rest) => (true, rest),
                None => continue,
            },
        };
        let name = rest.split_once(" - ").map_or(rest, |(_, name)| name);
        let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
        let name = if is_number {
            "a test without a name"
        } else {
            name
        };
        if name.contains("# SKIP") || rest.contains("# SKIP") {
            continue;
        }
        let number = (1..)
            .find(|number| !results.contains_key(&(name.to_owned(), *number)))
            .expect("there is no last number");
        results.insert((name.to_owned(), number), passed);
    }
    results.insert((EXIT.into(), 1), code == Some(0));
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_tests_at_the_margin_and_tells_equal_names_apart() {
        let output = "TAP version 13\n1..0\nok 1 - a\nnot ok 2 - a\n  not ok 3 - inside\n\
                      ok 4 # SKIP no such thing\nok 5 - # SKIP b\nok 6\n";
        let results = results(output, Some(1));
        let mut told = Vec::new();
        for ((name, number), passed) in &results {
            told.push(format!("{name} {number} {passed}"));
        }
        let expected = [
            "a 1 true",
            "a 2 false",
            "a test without a name 1 true",
            "the program ends with code 0 1 false",
        ];
        assert_eq!(told, expected);
    }
}
