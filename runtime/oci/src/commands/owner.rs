//! Whose a container is: the owner of its state directory, by name where /etc/passwd has one.

use std::fs::File;
use std::io::Read;

/// The largest passwd file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The user's name; `#UID` for one without.
pub(super) fn name(uid: u32) -> String {
    let mut text = String::new();
    let read =
        File::open("/etc/passwd").and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    let known = read.ok().and_then(|_| find(&text, uid));
    known.unwrap_or_else(|| format!("#{uid}"))
}

/// `name:password:uid:…`, the first line that fits (passwd(5)).
fn find(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_first_line_that_fits_names_the_user() {
        let text = "broken\n:x:0:0\nroot:x:0:0::/:\ntoor:x:0:0\nme:x:1000:5";
        assert_eq!(find(text, 0).as_deref(), Some("root"));
        assert_eq!(find(text, 1000).as_deref(), Some("me"));
        assert_eq!(find(text, 7), None);
    }
}
