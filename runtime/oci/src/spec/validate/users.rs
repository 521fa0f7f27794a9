//! The user namespace: its id maps, and that every id of the spec is in them.

use berth_sys::idmap::{self, IdMap};
use berth_sys::ns::NamespaceKind;

use super::Errors;
use crate::plan::{IdMaps, Namespaces};
use crate::spec::config::{Linux, Process, Spec};

/// `linux.uidMappings` and `linux.gidMappings`.
pub(super) fn maps(linux: &Linux, errors: &mut Errors) -> IdMaps {
    IdMaps {
        uids: super::idmap::map("linux.uidMappings", &linux.uid_mappings, errors),
        gids: super::idmap::map("linux.gidMappings", &linux.gid_mappings, errors),
    }
}

/// A new user namespace needs both maps, and without one there are none; inside, id 0 sets the
/// container up.
pub(super) fn check_namespace(namespaces: &Namespaces, errors: &mut Errors) {
    let new = namespaces.create.contains(&NamespaceKind::User);
    let any = namespaces.has_own(NamespaceKind::User);
    let maps = [
        ("linux.uidMappings", &namespaces.ids.uids),
        ("linux.gidMappings", &namespaces.ids.gids),
    ];
    for (field, map) in maps {
        if map.is_empty() {
            if new {
                errors.add(field, "is missing for a new user namespace");
            }
        } else if !any {
            errors.add(field, "needs a user namespace");
        } else if idmap::outside(map, 0).is_none() {
            errors.add(field, "does not map id 0, which sets the container up");
        }
    }
}

/// Every id of the process must be in the maps, where there are any.
pub(super) fn check_process(path: &str, process: &Process, ids: &IdMaps, errors: &mut Errors) {
    let user = &process.user;
    let mut check = |field: String, map: &[IdMap], name: &str, id: u32| {
        if is_unmapped(map, id) {
            errors.add(field, format!("{id} is not mapped by linux.{name}"));
        }
    };
    let field = |name: &str| format!("{path}.user.{name}");
    check(field("uid"), &ids.uids, "uidMappings", user.uid);
    check(field("gid"), &ids.gids, "gidMappings", user.gid);
    for (index, gid) in user.additional_gids.iter().enumerate() {
        let field = field(&format!("additionalGids[{index}]"));
        check(field, &ids.gids, "gidMappings", *gid);
    }
}

/// The owner of a new file system must be mapped: the kernel would only say EINVAL.
pub(super) fn check_mounts(spec: &Spec, ids: &IdMaps, errors: &mut Errors) {
    for (index, mount) in spec.mounts.iter().enumerate() {
        for word in &mount.options {
            let (map, name, value) = match word.split_once('=') {
                Some(("uid", value)) => (&ids.uids, "uidMappings", value),
                Some(("gid", value)) => (&ids.gids, "gidMappings", value),
                _ => continue,
            };
            if value.parse().is_ok_and(|id| is_unmapped(map, id)) {
                errors.add(
                    format!("mounts[{index}].options"),
                    format!("the id of `{word}` is not mapped by linux.{name}"),
                );
            }
        }
    }
}

fn is_unmapped(map: &[IdMap], id: u32) -> bool {
    !map.is_empty() && idmap::outside(map, id).is_none()
}

#[cfg(test)]
mod tests {
    use berth_sys::mount::attr;
    use serde_json::{Value, json};

    use super::super::tests::{paths, plan, with};
    use crate::plan::MountSource;

    fn base() -> Value {
        let mut spec = with("/linux/namespaces/2", json!({"type": "user"}));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec
    }

    #[test]
    fn a_mapped_container_becomes_a_plan() {
        let ids = plan(&base()).unwrap().namespaces.ids;
        assert_eq!((ids.uids.len(), ids.gids[0].outside), (1, 100_000));
    }

    #[test]
    fn what_the_maps_lack_is_named_by_its_path() {
        let line = |inside: u32, outside: u32, size: u32| json!({"containerID": inside, "hostID": outside, "size": size});
        let rows: Vec<(&str, Value, &[&str])> = vec![
            ("/linux/uidMappings", json!([]), &["linux.uidMappings"]),
            ("/linux/gidMappings", json!(null), &["linux.gidMappings"]),
            (
                "/linux/gidMappings",
                json!([line(1, 1, 10)]),
                &["linux.gidMappings", "process.user.gid"],
            ),
            (
                "/linux/uidMappings",
                json!([line(0, 1, 10), line(5, 100, 1)]),
                &["linux.uidMappings"],
            ),
            (
                "/process/user",
                json!({"uid": 1000, "gid": 1001, "additionalGids": [1, 1002]}),
                &[
                    "process.user.uid",
                    "process.user.gid",
                    "process.user.additionalGids[1]",
                ],
            ),
            (
                "/mounts/1",
                json!({"destination": "/x", "type": "devpts", "options": ["gid=1005", "uid=5"]}),
                &["mounts[1].options"],
            ),
            (
                "/linux/namespaces",
                json!([{"type": "mount"}]),
                &["linux.uidMappings", "linux.gidMappings"],
            ),
        ];
        for (pointer, value, expected) in rows {
            let mut spec = base();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match spec.pointer_mut(parent).unwrap() {
                Value::Array(all) => all.push(value),
                parent => parent[key] = value,
            }
            assert_eq!(paths(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn sysfs_without_a_network_namespace_is_the_hosts() {
        let mut spec = base();
        spec["mounts"] =
            json!([{"destination": "/sys", "type": "sysfs", "options": ["ro", "nosuid"]}]);
        let mounts = plan(&spec).unwrap().rootfs.mounts;
        let host = MountSource::Bind {
            path: "/sys".into(),
            recursive: true,
        };
        assert_eq!(mounts[0].source, host);
        let all_below = attr::RDONLY | attr::NOSUID;
        assert_eq!(mounts[0].recursive_attributes.set, all_below);
        let namespaces = spec["linux"]["namespaces"].as_array_mut();
        namespaces.unwrap().push(json!({"type": "network"}));
        assert_ne!(plan(&spec).unwrap().rootfs.mounts[0].source, host);
    }
}
