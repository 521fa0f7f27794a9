//! Users as an image names them: `user[:group]`, looked up in the image's own passwd and group.
//!
//! No NSS and no libc parser: a bounded reader of the two files. Numbers are canonical decimals up
//! to 2³¹−1, so that nothing which is not zero can become uid 0 (CVE-2024-40635, CVE-2026-30892).

use std::io::{self, BufRead, Read};

/// The greatest uid or gid accepted; beyond it 32-bit signed readers wrap.
const MAX_ID: u32 = i32::MAX as u32;
/// NGROUPS_MAX of Linux (limits.h).
const MAX_GROUPS: usize = 65_536;
/// Bytes of one line of passwd or group.
const MAX_LINE: u64 = 1 << 20;
/// Bytes of a user or group name (useradd(8) allows 256).
const MAX_NAME: usize = 256;

/// A user or group as written: a number or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A canonical decimal number, at most 2³¹−1.
    Id(u32),
    /// Anything else that can be a name.
    Name(String),
}

/// `user[:group]`, parsed but not looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSpec {
    /// The part before the colon; root when the text is empty.
    pub user: Principal,
    /// The part after the colon.
    pub group: Option<Principal>,
}

/// Why a text is not a user specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserSpecError {
    /// A number with sign, leading zero or above 2³¹−1.
    #[error("user or group id `{0}` is not a canonical decimal number up to 2147483647")]
    Number(String),
    /// Not a name either.
    #[error("`{0}` is not a user or group name")]
    Name(String),
}

/// Why a user could not be resolved in an image.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No such line in /etc/passwd.
    #[error("no user `{0}` in the image's /etc/passwd")]
    NoUser(String),
    /// No such line in /etc/group.
    #[error("no group `{0}` in the image's /etc/group")]
    NoGroup(String),
    /// The matching line carries no usable number.
    #[error("the entry of `{name}` in {file} is malformed")]
    Malformed {
        /// The user or group.
        name: String,
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
    },
    /// The file is larger than the store reads.
    #[error("{file} of the image is larger than {limit} bytes or has an overlong line")]
    TooLarge {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The user is in more groups than the kernel takes.
    #[error("the user is in more than {MAX_GROUPS} groups")]
    TooManyGroups,
    /// Reading failed.
    #[error("cannot read {file} of the image")]
    Read {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A user as a process gets it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id: the one asked for, else the one of passwd, else 0.
    pub gid: u32,
    /// Groups of /etc/group that list the user, ascending, without `gid`.
    pub groups: Vec<u32>,
    /// Home directory of passwd, if the user has an entry.
    pub home: Option<String>,
    /// Login name, if the user has an entry.
    pub name: Option<String>,
}

impl UserSpec {
    /// Parses `user[:group]` (image-spec `config.User`); the empty text is root.
    pub fn parse(text: &str) -> Result<Self, UserSpecError> {
        if text.is_empty() {
            return Ok(Self::uid(0));
        }
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(Principal::parse(group)?)),
            None => (text, None),
        };
        Ok(Self {
            user: Principal::parse(user)?,
            group,
        })
    }

    /// The user with this number, without a group.
    pub fn uid(uid: u32) -> Self {
        Self {
            user: Principal::Id(uid),
            group: None,
        }
    }

    /// The user with this name, without a group.
    pub fn name(name: &str) -> Result<Self, UserSpecError> {
        Ok(Self {
            user: Principal::parse(name)?,
            group: None,
        })
    }
}

impl Principal {
    fn parse(text: &str) -> Result<Self, UserSpecError> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let wrong = || UserSpecError::Number(text.to_owned());
            return parse_id(text).map(Self::Id).ok_or_else(wrong);
        }
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let rest = |c: char| first(c) || matches!(c, '-' | '.' | '$' | '@');
        let named = text.chars().next().is_some_and(first)
            && text.chars().all(rest)
            && text.len() <= MAX_NAME;
        if named {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(UserSpecError::Name(text.to_owned()))
        }
    }
}

/// A canonical decimal number: no sign, no leading zero, at most [`MAX_ID`].
fn parse_id(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
    let number = if canonical && digits {
        text.parse::<u32>().ok()?
    } else {
        return None;
    };
    (number <= MAX_ID).then_some(number)
}

/// One line of passwd that matched.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Resolves `spec` with the image's two files (absent ones are `None`), reading at most `limit`
/// bytes of each.
pub(crate) fn resolve(
    spec: &UserSpec,
    passwd: Option<impl Read>,
    group: Option<impl Read>,
    limit: u64,
) -> Result<ResolvedUser, UserError> {
    let account = match passwd {
        Some(file) => find_account(Lines::new(file, "/etc/passwd", limit), &spec.user)?,
        None => None,
    };
    let uid = match (&account, &spec.user) {
        (Some(account), _) => account.uid,
        (None, Principal::Id(uid)) => *uid,
        (None, Principal::Name(name)) => return Err(UserError::NoUser(name.clone())),
    };
    let member = account.as_ref().map(|account| account.name.as_str());
    let listed = match group {
        Some(file) => scan_groups(
            Lines::new(file, "/etc/group", limit),
            member,
            spec.group.as_ref(),
        )?,
        None => GroupScan::default(),
    };
    let gid = match (&spec.group, listed.asked) {
        (Some(Principal::Id(gid)), _) => *gid,
        (Some(Principal::Name(_)), Some(gid)) => gid,
        (Some(Principal::Name(name)), None) => return Err(UserError::NoGroup(name.clone())),
        (None, _) => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = listed.memberships;
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|listed| *listed != gid);
    let (name, home) = account.map(|a| (a.name, a.home)).unzip();
    Ok(ResolvedUser {
        uid,
        gid,
        groups,
        home,
        name,
    })
}

fn find_account(
    mut lines: Lines<impl Read>,
    user: &Principal,
) -> Result<Option<Account>, UserError> {
    while let Some(line) = lines.next_line()? {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else {
            continue;
        };
        let id = parse_id(uid);
        let matches = match user {
            Principal::Name(wanted) => name == wanted,
            Principal::Id(wanted) => id == Some(*wanted),
        };
        if !matches {
            continue;
        }
        let (Some(uid), Some(gid)) = (id, parse_id(gid)) else {
            return Err(UserError::Malformed {
                name: name.to_owned(),
                file: "/etc/passwd",
            });
        };
        return Ok(Some(Account {
            name: name.to_owned(),
            uid,
            gid,
            home: home.to_owned(),
        }));
    }
    Ok(None)
}

#[derive(Default)]
struct GroupScan {
    asked: Option<u32>,
    memberships: Vec<u32>,
}

fn scan_groups(
    mut lines: Lines<impl Read>,
    member: Option<&str>,
    asked: Option<&Principal>,
) -> Result<GroupScan, UserError> {
    let mut scan = GroupScan::default();
    while let Some(line) = lines.next_line()? {
        let mut fields = line.splitn(4, ':');
        let (Some(name), _, Some(gid)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let members = fields.next().unwrap_or("");
        let wanted = matches!(asked, Some(Principal::Name(asked)) if asked == name);
        let listed = member.is_some_and(|user| members.split(',').any(|m| m == user));
        if !wanted && !listed {
            continue;
        }
        let Some(gid) = parse_id(gid) else {
            return Err(UserError::Malformed {
                name: name.to_owned(),
                file: "/etc/group",
            });
        };
        if wanted && scan.asked.is_none() {
            scan.asked = Some(gid);
        }
        if listed {
            scan.memberships.push(gid);
        }
        if scan.memberships.len() > MAX_GROUPS {
            return Err(UserError::TooManyGroups);
        }
    }
    Ok(scan)
}

/// Lines of a file, with the file and each line bounded.
struct Lines<R> {
    reader: io::BufReader<io::Take<R>>,
    file: &'static str,
    limit: u64,
}

impl<R: Read> Lines<R> {
    fn new(file: R, name: &'static str, limit: u64) -> Self {
        Self {
            reader: io::BufReader::new(file.take(limit + 1)),
            file: name,
            limit,
        }
    }

    /// The next line that is UTF-8; others cannot name an ASCII user and are passed over.
    fn next_line(&mut self) -> Result<Option<String>, UserError> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.reader)
                .take(MAX_LINE)
                .read_until(b'\n', &mut line)
                .map_err(|source| UserError::Read {
                    file: self.file,
                    source,
                })?;
            if self.reader.get_ref().limit() == 0 || read as u64 == MAX_LINE {
                return Err(UserError::TooLarge {
                    file: self.file,
                    limit: self.limit,
                });
            }
            if read == 0 {
                return Ok(None);
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            if let Ok(line) = String::from_utf8(line) {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests;
