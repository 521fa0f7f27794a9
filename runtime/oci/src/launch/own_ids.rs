//! Id maps written by an ordinary user (user_namespaces(7), "Defining user and group ID mappings").
//!
//! The kernel lets it map its own id alone, and that only after the namespace has given up
//! setgroups(2). Everything else goes through newuidmap(1) and newgidmap(1), which know from
//! `/etc/subuid` and `/etc/subgid` what the user may map.

use std::io;
use std::process::{Command, Stdio};

use berth_sys::idmap::{self, IdMap};
use berth_sys::process::Child;

use super::error::At;
use super::{LaunchError, Stage};
use crate::plan::IdMaps;
use crate::procfs::ProcFs;

/// Writes both maps of the user namespace in which `holder` lives.
pub(super) fn write(holder: &Child, ids: &IdMaps) -> Result<(), LaunchError> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let write = |file: &str, text: &str| {
        let path = format!("{}/{file}", holder.pid());
        ProcFs::mounted()
            .and_then(|proc| proc.write(path.as_ref(), text))
            .at(Stage::Join, || format!("write `{}` to {file}", text.trim()))
    };
    if is_only(&ids.uids, uid) {
        write("uid_map", &idmap::text(&ids.uids))?;
    } else {
        run("newuidmap", holder, &ids.uids)?;
    }
    if is_only(&ids.gids, gid) {
        write("setgroups", "deny")?;
        write("gid_map", &idmap::text(&ids.gids))
    } else {
        run("newgidmap", holder, &ids.gids)
    }
}

/// Whether the map has nothing but this id.
fn is_only(map: &[IdMap], id: u32) -> bool {
    matches!(map, [line] if line.length == 1 && line.outside == id)
}

fn run(program: &str, holder: &Child, map: &[IdMap]) -> Result<(), LaunchError> {
    let step = || format!("map ids by {program}");
    let mut command = Command::new(program);
    command.arg(holder.pid().to_string());
    for line in map {
        command.args([line.inside, line.outside, line.length].map(|id| id.to_string()));
    }
    let output = match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why =
                "an ordinary user may map only its own id, and there is no such program in PATH";
            return Err(LaunchError::refused(Stage::Join, step(), why));
        }
        output => output.at(Stage::Join, step)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LaunchError::refused(Stage::Join, step(), said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ones_own_id_is_mapped_without_help() {
        let line = |inside, outside, length| IdMap {
            inside,
            outside,
            length,
        };
        assert!(is_only(&[line(0, 1000, 1)], 1000));
        assert!(is_only(&[line(5, 1000, 1)], 1000));
        for map in [
            &[line(0, 1000, 2)][..],
            &[line(0, 1001, 1)],
            &[line(0, 1000, 1), line(1, 100_000, 1)],
            &[],
        ] {
            assert!(!is_only(map, 1000), "{map:?}");
        }
    }
}
