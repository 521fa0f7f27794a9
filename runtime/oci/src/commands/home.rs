//! `HOME` for a process whose environment has none: engines leave it to the runtime, as runc looks it
//! up in the container's `/etc/passwd`.

use std::ffi::CString;
use std::path::Path;

use berth_oci::fault;
use berth_oci::plan::ProcessPlan;
use berth_sys::root::RootDir;

/// The largest passwd file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Adds `HOME` as the passwd file below `root` has it for the process's user; `/` for one unknown.
pub(super) fn add(process: &mut ProcessPlan, root: &Path) {
    let is_home =
        |entry: &CString| entry.to_bytes().starts_with(b"HOME=") && entry.count_bytes() > 5;
    if process.env.iter().any(is_home) {
        return;
    }
    let text = RootDir::open(root).and_then(|root| {
        if fault::is(fault::defence::NAMES) {
            root.read("etc/nsswitch.conf", MAX_BYTES)?;
        }
        root.read("etc/passwd", MAX_BYTES)
    });
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let home = find(&text, process.uid).unwrap_or("/");
    process
        .env
        .retain(|entry| !entry.to_bytes().starts_with(b"HOME="));
    process.env.extend(CString::new(format!("HOME={home}")));
}

/// `name:password:uid:gid:comment:home:shell` (passwd(5)).
fn find(text: &str, uid: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let fits = fields.get(2)?.parse() == Ok(uid);
        fields
            .get(5)
            .copied()
            .filter(|home| fits && !home.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_home_of_the_user_is_found() {
        let text = "broken\nroot:x:0:0:root:/root:/bin/sh\nme:x:7:7::/home/me:\nnone:x:8:8:::\n";
        assert_eq!(find(text, 0), Some("/root"));
        assert_eq!(find(text, 7), Some("/home/me"));
        assert_eq!((find(text, 8), find(text, 9)), (None, None));
    }
}
