//! What is refused by name instead of being ignored.

use berth_proto::cri;
use cri::security_profile::ProfileType;

use super::{SpecError, SpecInput, security};

/// Refuses the first field of the request that would not be honoured.
pub fn refuse(input: &SpecInput<'_>) -> Result<(), SpecError> {
    let config = input.config;
    let security = security(config);
    let named = |field: &str, reason| {
        Err(SpecError::Unsupported {
            field: field.to_owned(),
            reason,
        })
    };
    if !config.devices.is_empty() {
        return named("devices", "single host devices are not supported");
    }
    if !config.cdi_devices.is_empty() {
        return named("CDI_devices", "CDI devices are not supported");
    }
    if security
        .selinux_options
        .as_ref()
        .is_some_and(|options| *options != Default::default())
    {
        return named(
            "linux.security_context.selinux_options",
            "SELinux labels are not supported",
        );
    }
    if apparmor_asked(&security, input.host.apparmor) {
        return named(
            "linux.security_context.apparmor",
            "AppArmor profiles are not supported",
        );
    }
    let options = security.namespace_options.unwrap_or_default();
    let users = options.userns_options.unwrap_or_default();
    if users.mode() != cri::NamespaceMode::Node && !users.uids.is_empty()
        || matches!(
            users.mode(),
            cri::NamespaceMode::Container | cri::NamespaceMode::Target
        )
    {
        return named(
            "linux.security_context.namespace_options.userns_options",
            "user namespaces are not supported",
        );
    }
    refuse_mounts(&config.mounts)?;
    refuse_groups(config)
}

/// A profile by name needs a kernel with AppArmor and a loaded profile; without AppArmor
/// the default profile is vacuous, as with any other runtime.
#[expect(
    deprecated,
    reason = "clients older than Kubernetes 1.30 set only apparmor_profile"
)]
fn apparmor_asked(security: &cri::LinuxContainerSecurityContext, enabled: bool) -> bool {
    let kind = match &security.apparmor {
        Some(profile) => profile.profile_type(),
        None => match security.apparmor_profile.as_str() {
            "" | "unconfined" => ProfileType::Unconfined,
            "runtime/default" => ProfileType::RuntimeDefault,
            _ => ProfileType::Localhost,
        },
    };
    match kind {
        ProfileType::Unconfined => false,
        ProfileType::RuntimeDefault => enabled,
        ProfileType::Localhost => true,
    }
}

fn refuse_mounts(mounts: &[cri::Mount]) -> Result<(), SpecError> {
    for (index, mount) in mounts.iter().enumerate() {
        let named = |field: &str, reason| {
            Err(SpecError::Unsupported {
                field: format!("mounts[{index}].{field}"),
                reason,
            })
        };
        if mount
            .image
            .as_ref()
            .is_some_and(|image| !image.image.is_empty())
        {
            return named("image", "image volumes are not supported");
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            return named("uidMappings", "idmapped mounts are not supported");
        }
        if mount.container_path.is_empty() || mount.host_path.is_empty() {
            return Err(SpecError::Invalid {
                field: format!("mounts[{index}]"),
                reason: "container_path and host_path are required".to_owned(),
            });
        }
    }
    Ok(())
}

fn refuse_groups(config: &cri::ContainerConfig) -> Result<(), SpecError> {
    let security = security(config);
    let no_user = security.run_as_user.is_none() && security.run_as_username.is_empty();
    if security.run_as_group.is_some() && no_user {
        return Err(SpecError::Invalid {
            field: "linux.security_context.run_as_group".to_owned(),
            reason: "run_as_group is specified without run_as_user or run_as_username".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::oci_spec::tests::{build_in, command, secured};

    fn refused(field: &str, config: &cri::ContainerConfig) {
        let error = build_in(config, &cri::PodSandboxConfig::default())
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(field), "{error}");
    }

    fn refused_security(field: &str, security: cri::LinuxContainerSecurityContext) {
        refused(
            &format!("linux.security_context.{field}"),
            &secured(security),
        );
    }

    #[test]
    fn fields_of_the_container_are_refused_by_name() {
        let devices = vec![cri::Device::default()];
        refused(
            "devices",
            &cri::ContainerConfig {
                devices,
                ..command()
            },
        );
        let cdi_devices = vec![cri::CdiDevice::default()];
        refused(
            "CDI_devices",
            &cri::ContainerConfig {
                cdi_devices,
                ..command()
            },
        );
        let image = Some(cri::ImageSpec {
            image: "a".to_owned(),
            ..Default::default()
        });
        let mounts = vec![cri::Mount {
            image,
            ..Default::default()
        }];
        refused(
            "mounts[0].image",
            &cri::ContainerConfig {
                mounts,
                ..command()
            },
        );
        let map = vec![cri::IdMapping::default()];
        let mounts = vec![cri::Mount {
            uid_mappings: map,
            ..Default::default()
        }];
        refused(
            "mounts[0].uidMappings",
            &cri::ContainerConfig {
                mounts,
                ..command()
            },
        );
    }

    #[test]
    fn fields_of_the_security_context_are_refused_by_name() {
        let label = cri::SeLinuxOption {
            level: "s0".to_owned(),
            ..Default::default()
        };
        let selinux_options = Some(label);
        refused_security(
            "selinux_options",
            cri::LinuxContainerSecurityContext {
                selinux_options,
                ..Default::default()
            },
        );
        let profile = cri::SecurityProfile {
            profile_type: 2,
            localhost_ref: "x".to_owned(),
        };
        let apparmor = Some(profile);
        refused_security(
            "apparmor",
            cri::LinuxContainerSecurityContext {
                apparmor,
                ..Default::default()
            },
        );
        let run_as_group = Some(cri::Int64Value { value: 1 });
        refused_security(
            "run_as_group",
            cri::LinuxContainerSecurityContext {
                run_as_group,
                ..Default::default()
            },
        );
        let userns_options = Some(cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: vec![cri::IdMapping {
                host_id: 1,
                container_id: 0,
                length: 1,
            }],
            gids: Vec::new(),
        });
        let namespace_options = Some(cri::NamespaceOption {
            userns_options,
            ..Default::default()
        });
        refused_security(
            "namespace_options.userns_options",
            cri::LinuxContainerSecurityContext {
                namespace_options,
                ..Default::default()
            },
        );
    }
}
