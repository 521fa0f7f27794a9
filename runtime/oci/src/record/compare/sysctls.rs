//! Kernel parameters, of which the kernel shows numbers in a form of its own.

use super::Comparison;

impl Comparison<'_> {
    pub(super) fn sysctls(&mut self) {
        let unread = &self.observed.unread;
        if unread.iter().any(|one| one.field == "sysctls") {
            return;
        }
        for (file, asked) in self.requested.sysctls.iter().flatten() {
            let all = self.observed.applied.sysctls.as_ref();
            let got = all.and_then(|all| all.get(file));
            if !got.is_some_and(|got| is_same(asked, got)) {
                let got = got.map_or("nothing", String::as_str);
                self.out.differs(&format!("sysctls.{file}"), asked, got);
            }
        }
    }
}

/// Whether the kernel shows `got` after `asked` was written (`kernel/sysctl.c`): numbers in decimal,
/// also those which were not given; numbers of a set in order, neighbours as a range.
fn is_same(asked: &str, got: &str) -> bool {
    let words = |text: &'_ str| -> Vec<String> {
        let words = text.split_whitespace();
        words.map(str::to_owned).collect()
    };
    let (asked_words, got_words) = (words(asked), words(got));
    let numbers =
        |words: &[String]| -> Option<Vec<i128>> { words.iter().map(|word| number(word)).collect() };
    if asked_words == got_words {
        return true;
    }
    if let (Some(asked), Some(got)) = (numbers(&asked_words), numbers(&got_words)) {
        return !asked.is_empty() && got.starts_with(&asked);
    }
    ranges(asked).is_some_and(|asked| ranges(got) == Some(asked))
}

/// A number as strtoul(3) reads it with base 0.
fn number(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, base) = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (lower.as_str(), 10),
    };
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    let value = i128::from_str_radix(digits, base).ok();
    value.filter(|_| plain).map(|value| sign * value)
}

/// A set such as `2000,3000-3010`, in order, with neighbours joined.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    let range = |part: &str| -> Option<(u32, u32)> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let mut all: Vec<_> = text.trim().split(',').map(range).collect::<Option<_>>()?;
    all.sort_unstable();
    let mut out: Vec<(u32, u32)> = Vec::new();
    for (first, last) in all {
        match out.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => out.push((first, last)),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::is_same;

    #[test]
    fn a_parameter_is_the_same_in_the_kernels_own_form() {
        for (asked, got) in [
            ("1", "1"),
            ("cubic", "cubic"),
            ("0x1000", "4096"),
            ("077", "63"),
            ("-1", "-1"),
            ("4096 131072", "4096\t131072\t6291456"),
            ("3000,2000", "2000,3000"),
            ("2000,2001,2002", "2000-2002"),
            ("2000-2005,2003-2010", "2000-2010"),
            ("", ""),
        ] {
            assert!(is_same(asked, got), "{asked} {got}");
        }
        for (asked, got) in [
            ("1", "0"),
            ("4096 131072", "4096 1 6291456"),
            ("4096", ""),
            ("", "1"),
            ("2000,3000", "2000-3000"),
            ("2000", "2000,3000"),
            ("cubic", "reno"),
            ("0x", "0"),
        ] {
            assert!(!is_same(asked, got), "{asked} {got}");
        }
    }
}
