//! Limits as the kernel writes them back: rounded, sorted, with defaults filled in.

use std::collections::BTreeSet;

use super::Comparison;

/// Bytes of a page: the kernel counts memory in whole ones.
const PAGE: u64 = 4096;
/// Period of `cpu.max` where none was written, in µs (cgroup-v2.rst).
const PERIOD: &str = "100000";

impl Comparison<'_> {
    pub(super) fn limits(&mut self) {
        let (asked, got) = (self.requested, &self.observed.applied);
        for (file, asked) in asked.limits.iter().flatten() {
            let field = format!("limits.{file}");
            match got.limits.as_ref().and_then(|all| all.get(file)) {
                Some(found) if equal(file, asked, found) => self.effective(file, asked),
                Some(found) => self.out.differs(&field, asked, found),
                None => self.not_there(file, asked),
            }
        }
        let (asked, got) = (&self.requested.device_rules, &got.device_rules);
        if let (Some(asked), Some(got)) = (asked, got)
            && asked != got
            && !self.observed.same_devices
        {
            if got.is_empty() && self.requested.context.degraded_ok && !self.own.may_filter() {
                self.out.weaker(
                    "device_rules",
                    "the kernel takes no device filter from here",
                );
            } else {
                self.out.differs("device_rules", asked, got);
            }
        }
        self.rlimits();
    }

    /// Processors that are not there are not given, though asked.
    fn effective(&mut self, file: &str, asked: &str) {
        let found = self.observed.applied.limits.as_ref();
        let effective = found.and_then(|all| all.get(&format!("{file}.effective")));
        if let Some(effective) = effective
            && list(effective) != list(asked)
        {
            let reason = format!("of {asked} only {effective} can be used");
            self.out.weaker(format!("limits.{file}"), reason);
        }
    }

    fn not_there(&mut self, file: &str, asked: &str) {
        let field = format!("limits.{file}");
        let controller = file.split('.').next().unwrap_or_default();
        let unlimited = asked == "max" || asked.starts_with("max ");
        let unread = self.observed.unread.iter().any(|one| one.field == "limits");
        // Without swap accounting there is no such file, and without swap no limit is exceeded.
        if unread || unlimited || file == "memory.swap.max" {
            return;
        }
        if file == "io.bfq.weight" {
            let reason = "the kernel has no such file: io.weight was written in its place";
            return self.out.weaker(field, reason);
        }
        if !self
            .observed
            .controllers
            .iter()
            .any(|one| one == controller)
            && self.requested.context.degraded_ok
        {
            let reason = format!("the group has no {controller} controller in cgroup v2");
            self.out.weaker(field, reason);
        } else {
            self.out.differs(&field, asked, "no such file");
        }
    }

    fn rlimits(&mut self) {
        let got = self.observed.applied.rlimits.as_ref();
        for (name, asked) in self.requested.rlimits.iter().flatten() {
            let found = got.and_then(|all| all.get(name));
            if found == Some(asked) {
                continue;
            }
            let field = format!("rlimits.{name}");
            match found {
                Some(found) if !self.own.may_raise() && below(found, asked) => {
                    let reason = format!("{found} instead of {asked}: no CAP_SYS_RESOURCE");
                    self.out.weaker(field, reason);
                }
                _ => self.out.differs(&field, asked, found),
            }
        }
    }
}

fn below(found: &str, asked: &str) -> bool {
    let parse = |text: &str| text.parse().unwrap_or(u64::MAX);
    let (Some((soft, hard)), Some((most_soft, most_hard))) =
        (found.split_once(':'), asked.split_once(':'))
    else {
        return false;
    };
    parse(soft) <= parse(most_soft) && parse(hard) <= parse(most_hard)
}

/// Whether the text of a cgroup file says what was written to it.
fn equal(file: &str, asked: &str, found: &str) -> bool {
    match file {
        "cpu.max" => {
            let with_period = |text: &str| match text.split_once(' ') {
                Some(_) => text.to_owned(),
                None => format!("{text} {PERIOD}"),
            };
            with_period(asked) == with_period(found)
        }
        "cpuset.cpus" | "cpuset.mems" => list(asked) == list(found),
        "io.weight" => {
            found.lines().any(|line| same_words(line, asked)) || same_weight(asked, found)
        }
        _ if asked.contains('=') => asked.lines().all(|line| keyed(line, found)),
        _ if file.starts_with("hugetlb.") => rounded(asked, page_of(file)) == rounded(found, 1),
        "memory.oom.group" => asked == found,
        _ if file.starts_with("memory.") => rounded(asked, PAGE) == rounded(found, 1),
        _ => same_words(asked, found),
    }
}

fn same_weight(asked: &str, found: &str) -> bool {
    asked
        .lines()
        .all(|line| found.lines().any(|seen| same_words(seen, line)))
}

fn same_words(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

/// A number of bytes in whole pages, rounded down; as many as there are, `max`.
fn rounded(text: &str, page: u64) -> String {
    match text.trim().parse::<u64>() {
        Ok(bytes) if bytes / PAGE >= i64::MAX as u64 / PAGE => "max".to_owned(),
        Ok(bytes) => (bytes - bytes % page).to_string(),
        Err(_) => text.trim().to_owned(),
    }
}

/// The page size in the name `hugetlb.2MB.max`, in bytes.
fn page_of(file: &str) -> u64 {
    let size = file.split('.').nth(1).unwrap_or_default();
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match size.trim_start_matches(|c: char| c.is_ascii_digit()) {
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => 1,
    };
    digits.parse::<u64>().unwrap_or(1).max(1) * unit
}

/// Whether the line of `device key=value…` is among those found, which have all keys.
fn keyed(asked: &str, found: &str) -> bool {
    let mut words = asked.split_whitespace();
    let device = words.next();
    let line = found
        .lines()
        .find(|line| line.split_whitespace().next() == device);
    words.all(|pair| match line {
        Some(line) => line.split_whitespace().any(|seen| seen == pair),
        // A device without any limit has no line.
        None => pair.ends_with("=max"),
    })
}

/// The numbers of a list such as `0-2,4`; a list that is none is empty.
fn list(text: &str) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
            out.extend(first..=last.min(first.saturating_add(8192)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn what_the_kernel_writes_back_is_recognised() {
        for (file, asked, found, same) in [
            ("memory.max", "1000000", "999424", true),
            ("memory.max", "1000000", "1000000", false),
            ("memory.max", "max", "max", true),
            ("memory.max", "9223372036854775807", "max", true),
            ("memory.low", "4096", "0", false),
            ("memory.oom.group", "1", "1", true),
            ("memory.oom.group", "1", "0", false),
            ("cpu.max", "50000", "50000 100000", true),
            ("cpu.max", "max", "max 100000", true),
            ("cpu.max", "50000 200000", "50000 100000", false),
            ("cpuset.cpus", "0,1,2", "0-2", true),
            ("cpuset.cpus", "0-1", "0", false),
            ("cpu.weight", "100", "100", true),
            ("cpu.weight", "100", "17", false),
            ("pids.max", "7", "7", true),
            ("pids.max", "7", "max", false),
            ("io.weight", "default 100", "default 100\n8:0 50", true),
            (
                "io.max",
                "8:0 rbps=5",
                "8:0 rbps=5 wbps=max riops=max wiops=max",
                true,
            ),
            (
                "io.max",
                "8:0 rbps=5\n8:0 wbps=6",
                "8:0 rbps=5 wbps=6 riops=max wiops=max",
                true,
            ),
            ("io.max", "8:0 rbps=5", "8:16 rbps=5", false),
            ("io.max", "8:0 rbps=max", "", true),
            ("hugetlb.2MB.max", "3000000", "2097152", true),
            ("hugetlb.2MB.max", "3000000", "3000000", false),
        ] {
            assert_eq!(equal(file, asked, found), same, "{file}: {asked} / {found}");
        }
    }
}
