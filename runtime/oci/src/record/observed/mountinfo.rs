//! `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).

use crate::record::schema::Mount;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Id of the mount.
    pub(super) id: u64,
    pub(super) mount: Mount,
}

/// The table, in the kernel's order; a line that cannot be read is shown as it is, so that it is
/// judged as a mount that nobody asked for.
pub(super) fn parse(text: &str) -> Vec<Line> {
    text.lines()
        .map(|line| {
            parse_line(line).unwrap_or_else(|| Line {
                id: 0,
                mount: Mount {
                    target: line.to_owned(),
                    ..Mount::default()
                },
            })
        })
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let _parent = fields.next()?;
    let device = fields.next()?;
    let root = fields.next()?;
    let target = unescape(fields.next()?);
    let options = fields.next()?;
    let mut after = after.split(' ');
    let kind = after.next()?.to_owned();
    let source = unescape(after.next()?);
    let restricting = options
        .split(',')
        .filter(|word| !["rw", "relatime"].contains(word));
    let mut flags: Vec<String> = restricting.map(str::to_owned).collect();
    if options.split(',').any(|word| word == "relatime") {
        flags.push("relatime".into());
    }
    let shown = match root {
        "/" => source,
        root => format!("{device}:{}", unescape(root)),
    };
    Some(Line {
        id,
        mount: Mount {
            target,
            source: shown,
            kind,
            flags,
            propagation: propagation(fields),
            file: None,
        },
    })
}

fn propagation<'a>(optional: impl Iterator<Item = &'a str>) -> String {
    let (mut shared, mut slave, mut unbindable) = (false, false, false);
    for field in optional {
        shared |= field.starts_with("shared:");
        slave |= field.starts_with("master:");
        unbindable |= field == "unbindable";
    }
    match (shared, slave, unbindable) {
        (true, true, _) => "shared,slave",
        (true, false, _) => "shared",
        (false, true, _) => "slave",
        (false, false, true) => "unbindable",
        (false, false, false) => "private",
    }
    .to_owned()
}

/// Blanks, tabs, line ends and backslashes stand as three octal digits.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_mounts() {
        let text = "36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            37 36 0:5 /a\\040b /x\\134y ro,nosuid,relatime shared:2 - tmpfs tmpfs rw\nbroken\n";
        let table = parse(text);
        assert_eq!(table[0].id, 36);
        assert_eq!(table[0].mount.source, "/dev/root");
        assert_eq!(table[0].mount.flags, ["noatime"]);
        assert_eq!(table[0].mount.propagation, "slave");
        assert_eq!(table[1].mount.target, "/x\\y");
        assert_eq!(table[1].mount.source, "0:5:/a b");
        assert_eq!(table[1].mount.flags, ["ro", "nosuid", "relatime"]);
        assert_eq!(table[1].mount.propagation, "shared");
        assert_eq!(table[2].mount.target, "broken");
    }
}
