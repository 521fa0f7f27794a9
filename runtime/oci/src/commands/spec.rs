//! `spec`: a template to start from.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

use berth_oci::seccomp;
use oci_spec::runtime::{
    Linux, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    Spec,
};

use super::Failure;
use crate::cli::{SPEC_VERSION, SpecArgs};

pub(super) fn run(args: &SpecArgs) -> Result<ExitCode, Failure> {
    let path = args.bundle.join("config.json");
    let failed = || Failure::io(format!("write `{}`", path.display()));
    let mut spec = template();
    if args.rootless {
        let uid = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        make_rootless(&mut spec, uid, gid)?;
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

fn template() -> Spec {
    let mut spec = Spec::default();
    spec.set_version(SPEC_VERSION.to_owned());
    let capabilities = spec
        .process()
        .as_ref()
        .and_then(|process| process.capabilities().clone());
    let bounding: Vec<_> = capabilities
        .and_then(|all| all.bounding().clone())
        .into_iter()
        .flatten()
        .collect();
    spec.set_hostname(Some("berth".into()));
    if let Some(process) = spec.process_mut() {
        process.set_terminal(Some(true));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(seccomp::default_profile(&bounding)));
    }
    spec
}

/// What a user without privilege can have: a user namespace in which they are root, the host's
/// network, no limits, and of `/sys` the host's own, for sysfs needs a network namespace.
fn make_rootless(spec: &mut Spec, uid: u32, gid: u32) -> Result<(), Failure> {
    let mounts = spec.mounts().iter().flatten().map(rootless_mount);
    let mounts = mounts.collect();
    spec.set_mounts(Some(mounts));
    let linux = spec.linux().clone().unwrap_or_default();
    spec.set_linux(Some(rootless_linux(linux, uid, gid)?));
    Ok(())
}

fn rootless_linux(mut linux: Linux, uid: u32, gid: u32) -> Result<Linux, Failure> {
    let failed =
        |e: oci_spec::OciSpecError| Failure::Usage(format!("cannot make the template: {e}"));
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| {
        !matches!(
            namespace.typ(),
            LinuxNamespaceType::Network | LinuxNamespaceType::User
        )
    });
    let user = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User);
    namespaces.push(user.build().map_err(failed)?);
    let only = |id: u32| -> Result<Option<Vec<LinuxIdMapping>>, Failure> {
        let map = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(id)
            .size(1u32);
        Ok(Some(vec![map.build().map_err(failed)?]))
    };
    linux.set_namespaces(Some(namespaces));
    linux.set_uid_mappings(only(uid)?);
    linux.set_gid_mappings(only(gid)?);
    linux.set_resources(None);
    Ok(linux)
}

fn rootless_mount(mount: &Mount) -> Mount {
    let mut mount = mount.clone();
    if mount.destination().as_os_str() == "/sys" {
        mount.set_typ(Some("none".into()));
        mount.set_source(Some("/sys".into()));
        let options = ["rbind", "nosuid", "noexec", "nodev", "ro"];
        mount.set_options(Some(options.map(String::from).into()));
        return mount;
    }
    // Only ids that the user namespace maps may be named, and it maps one.
    if let Some(mut options) = mount.options().clone() {
        options.retain(|word| !word.starts_with("gid=") && !word.starts_with("uid="));
        mount.set_options(Some(options));
    }
    mount
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rootless_template_maps_the_caller_and_shares_the_network() {
        let mut spec = template();
        make_rootless(&mut spec, 1000, 100).unwrap();
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
