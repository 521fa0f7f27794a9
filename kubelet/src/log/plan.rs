//! Which rotated files go and which are compressed. Pure.

/// Ending of a file that is being compressed: a crash may leave it behind.
pub const UNFINISHED: &str = ".tmp";
/// Ending of a compressed file.
pub const COMPRESSED: &str = ".gz";

/// What is to be done before a log is rotated once more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Left by a crash, or more than are kept.
    pub remove: Vec<String>,
    /// Rotated before, and not compressed yet.
    pub compress: Vec<String>,
}

/// Chooses among the rotated files `names`, sorted oldest first, so that with the log and
/// the file it is about to become at most `max_files` remain.
#[must_use]
pub fn compute_plan(names: &[String], max_files: usize) -> Plan {
    let replaced = |name: &String| {
        name.ends_with(UNFINISHED) || names.contains(&format!("{name}{COMPRESSED}"))
    };
    let (mut remove, kept): (Vec<String>, Vec<String>) = names.iter().cloned().partition(replaced);
    let excess = kept.len().saturating_sub(max_files.saturating_sub(2));
    remove.extend_from_slice(&kept[..excess]);
    let compress = kept.into_iter().skip(excess);
    Plan {
        remove,
        compress: compress.filter(|n| !n.ends_with(COMPRESSED)).collect(),
    }
}

/// Whether `name` is a file that the log `base` was renamed to, or made of such a one.
#[must_use]
pub fn is_rotated(base: &str, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(base).and_then(|r| r.strip_prefix('.')) else {
        return false;
    };
    let rest = rest.strip_suffix(UNFINISHED).unwrap_or(rest);
    let time = rest.strip_suffix(COMPRESSED).unwrap_or(rest);
    let digits =
        |text: &str, count| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    time.split_once('-')
        .is_some_and(|(day, second)| digits(day, 8) && digits(second, 6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(names: &[&str], max_files: usize) -> (Vec<String>, Vec<String>) {
        let names: Vec<String> = names.iter().map(|n| format!("0.log.{n}")).collect();
        let short = |names: Vec<String>| {
            let bare = |n: String| n.trim_start_matches("0.log.").to_owned();
            names.into_iter().map(bare).collect()
        };
        let plan = compute_plan(&names, max_files);
        (short(plan.remove), short(plan.compress))
    }

    #[test]
    fn the_oldest_go_and_the_rest_is_compressed() {
        for (names, max_files, remove, compress) in [
            (&[][..], 5, &[][..], &[][..]),
            (&["1"], 5, &[], &["1"]),
            (&["1.gz", "2.gz", "3"], 5, &[], &["3"]),
            (&["1.gz", "2.gz", "3.gz", "4"], 5, &["1.gz"], &["4"]),
            (&["1", "2"], 2, &["1", "2"], &[]),
            // Crashes: while compressing, and before the original was removed.
            (&["1", "1.gz.tmp"], 5, &["1.gz.tmp"], &["1"]),
            (&["1", "1.gz", "2"], 5, &["1"], &["2"]),
        ] {
            let got = plan(names, max_files);
            assert_eq!(got, (owned(remove), owned(compress)), "{names:?}");
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn only_own_files_count() {
        for (name, expected) in [
            ("0.log.20260102-030405", true),
            ("0.log.20260102-030405.gz", true),
            ("0.log.20260102-030405.gz.tmp", true),
            ("0.log", false),
            ("0.log.1", false),
            ("0.log.bak", false),
            ("10.log.20260102-030405", false),
            ("0.log.20260102-03040", false),
        ] {
            assert_eq!(is_rotated("0.log", name), expected, "{name}");
        }
    }
}
