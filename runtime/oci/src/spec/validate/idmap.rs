//! Id mappings → [`IdMap`]s: every rule that the kernel has for a map, so that it cannot refuse one later.

use berth_sys::idmap::{self, IdMap};

use super::Errors;
use crate::spec::config::LinuxIdMapping;

/// One map, checked: no empty or overflowing line, no overlap on either side, at most 340 lines
/// (user_namespaces(7)).
pub(super) fn map(field: &str, lines: &[LinuxIdMapping], errors: &mut Errors) -> Vec<IdMap> {
    let out: Vec<IdMap> = lines
        .iter()
        .map(|line| IdMap {
            inside: line.container_id,
            outside: line.host_id,
            length: line.size,
        })
        .collect();
    if out.len() > idmap::MAX_LINES {
        let most = idmap::MAX_LINES;
        errors.add(field, format!("has more than {most} lines"));
    }
    for (index, line) in out.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if line.length == 0 {
            errors.add(&field, "maps no id");
        } else if end(line.inside, line) > END || end(line.outside, line) > END {
            errors.add(&field, "goes beyond the highest id, 4294967294");
        }
    }
    for (name, side) in SIDES {
        let mut sorted: Vec<&IdMap> = out.iter().collect();
        sorted.sort_by_key(|line| side(line));
        let overlaps = |pair: &[&IdMap]| end(side(pair[0]), pair[0]) > u64::from(side(pair[1]));
        if sorted.windows(2).any(overlaps) {
            errors.add(field, format!("has the same {name} in two lines"));
        }
    }
    out
}

/// One past the highest id: 4294967295 is none.
const END: u64 = u32::MAX as u64;

type Side = fn(&IdMap) -> u32;

const SIDES: [(&str, Side); 2] = [
    ("containerID", |line| line.inside),
    ("hostID", |line| line.outside),
];

fn end(first: u32, line: &IdMap) -> u64 {
    u64::from(first) + u64::from(line.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_its_place() {
        let line = |container_id: u32, host_id: u32, size: u32| LinuxIdMapping {
            container_id,
            host_id,
            size,
        };
        let many: Vec<_> = (0..341).map(|n| line(2 * n, 2 * n, 1)).collect();
        let rows: [(&[LinuxIdMapping], &[&str]); 8] = [
            (&[line(0, 1000, 1), line(1, 5, 10)], &[]),
            (&[line(0, 0, u32::MAX)], &[]),
            (&[line(0, 0, 0)], &["m[0]"]),
            (&[line(1, 0, u32::MAX)], &["m[0]"]),
            (&[line(0, u32::MAX, 1)], &["m[0]"]),
            (&[line(0, 10, 5), line(4, 100, 1)], &["m"]),
            (&[line(10, 10, 5), line(0, 14, 1)], &["m"]),
            (&many, &["m"]),
        ];
        for (lines, expected) in rows {
            let mut errors = Errors::default();
            map("m", lines, &mut errors);
            let paths: Vec<&str> = errors.0.iter().map(|error| error.path.as_str()).collect();
            assert_eq!(paths, expected, "{lines:?}");
        }
    }
}
