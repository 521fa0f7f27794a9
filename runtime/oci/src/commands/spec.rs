//! `spec`: a template to start from.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use berth_oci::seccomp;
use berth_oci::spec::config::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Mount, Spec};
use berth_oci::spec::parse;

use super::Failure;
use crate::cli::{SPEC_VERSION, SpecArgs};

/// All of it but the version and the filter of system calls.
const TEMPLATE: &[u8] = include_bytes!("template.json");

pub(super) fn run(args: &SpecArgs) -> Result<ExitCode, Failure> {
    let path = args.bundle.join("config.json");
    let failed = || Failure::io(format!("write `{}`", path.display()));
    let mut spec = template()?;
    if args.rootless {
        let uid = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        make_rootless(&mut spec, uid, gid);
    }
    let text = serde_json::to_string_pretty(&spec).map_err(|e| failed()(e.into()))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed())?;
    writeln!(file, "{text}").map_err(failed())?;
    Ok(ExitCode::SUCCESS)
}

fn template() -> Result<Spec, Failure> {
    let mut spec = parse(TEMPLATE, Path::new("template.json"))?;
    spec.version = SPEC_VERSION.to_owned();
    let process = spec.process.as_ref();
    let capabilities = process.and_then(|process| process.capabilities.as_ref());
    let bounding = capabilities.map(|sets| sets.bounding).unwrap_or_default();
    if let Some(linux) = &mut spec.linux {
        linux.seccomp = Some(seccomp::default_profile(bounding));
    }
    Ok(spec)
}

/// What a user without privilege can have: a user namespace in which they are root, the host's
/// network, no limits, and of `/sys` the host's own, for sysfs needs a network namespace.
fn make_rootless(spec: &mut Spec, uid: u32, gid: u32) {
    spec.mounts.iter_mut().for_each(make_mount_rootless);
    let linux = spec.linux.get_or_insert_default();
    let shared = [LinuxNamespaceType::Network, LinuxNamespaceType::User];
    linux.namespaces.retain(|one| !shared.contains(&one.kind));
    linux.namespaces.push(LinuxNamespace {
        kind: LinuxNamespaceType::User,
        ..LinuxNamespace::default()
    });
    let only = |host_id| LinuxIdMapping {
        container_id: 0,
        host_id,
        size: 1,
    };
    linux.uid_mappings = vec![only(uid)];
    linux.gid_mappings = vec![only(gid)];
    linux.resources = None;
}

fn make_mount_rootless(mount: &mut Mount) {
    if mount.destination.as_os_str() == "/sys" {
        mount.kind = "none".into();
        mount.source = "/sys".into();
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        mount.options = options.map(String::from).into();
        return;
    }
    // Only ids that the user namespace maps may be named, and it maps one.
    let options = &mut mount.options;
    options.retain(|word| !word.starts_with("gid=") && !word.starts_with("uid="));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rootless_template_maps_the_caller_and_shares_the_network() {
        let mut spec = template().unwrap();
        make_rootless(&mut spec, 1000, 100);
        let spec = serde_json::to_value(spec).unwrap();
        let kinds: Vec<&str> = spec["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|namespace| namespace["type"].as_str())
            .collect();
        assert!(
            kinds.contains(&"user") && !kinds.contains(&"network"),
            "{kinds:?}"
        );
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(spec["linux"]["gidMappings"][0]["hostID"], 100);
        assert!(spec["linux"].get("resources").is_none());
        let text = spec["mounts"].to_string();
        assert!(text.contains("rbind") && !text.contains("gid="), "{text}");
    }
}
