//! Which seccomp profile applies.

use std::path::{Path, PathBuf};

use berth_proto::cri;
use cri::security_profile::ProfileType;
use serde_json::Value;

use super::capabilities::Capabilities;
use super::{HostInput, SpecError};

/// Where profiles come from.
pub trait SeccompSource: Sync {
    /// The default profile for a container holding `capabilities`.
    fn default_profile(&self, capabilities: &[String]) -> Value;
    /// The profile in the file `path`.
    fn localhost_profile(&self, path: &Path) -> std::io::Result<Value>;
}

/// None: unconfined. A privileged container always is; so is one that asks for nothing.
pub fn profile(
    security: &cri::LinuxContainerSecurityContext,
    capabilities: &Capabilities,
    host: &HostInput<'_>,
) -> Result<Option<Value>, SpecError> {
    if security.privileged {
        return Ok(None);
    }
    let Some((kind, reference)) = asked(security)? else {
        return Ok(None);
    };
    match kind {
        ProfileType::Unconfined => Ok(None),
        ProfileType::RuntimeDefault => {
            let held: Vec<String> = capabilities.held.iter().cloned().collect();
            Ok(Some(host.seccomp.default_profile(&held)))
        }
        ProfileType::Localhost => {
            let profile = PathBuf::from(reference);
            let read = host.seccomp.localhost_profile(&profile);
            read.map(Some)
                .map_err(|source| SpecError::Seccomp { profile, source })
        }
    }
}

/// The field `seccomp`, else what the older field `seccomp_profile_path` spells.
#[expect(
    deprecated,
    reason = "clients older than Kubernetes 1.19 set only seccomp_profile_path"
)]
fn asked(
    security: &cri::LinuxContainerSecurityContext,
) -> Result<Option<(ProfileType, String)>, SpecError> {
    if let Some(profile) = &security.seccomp {
        return Ok(Some((
            profile.profile_type(),
            profile.localhost_ref.clone(),
        )));
    }
    match security.seccomp_profile_path.as_str() {
        "" => Ok(None),
        "unconfined" => Ok(Some((ProfileType::Unconfined, String::new()))),
        "runtime/default" | "docker/default" => {
            Ok(Some((ProfileType::RuntimeDefault, String::new())))
        }
        path => match path.strip_prefix("localhost/") {
            Some(path) => Ok(Some((ProfileType::Localhost, path.to_owned()))),
            None => Err(SpecError::Invalid {
                field: "linux.security_context.seccomp_profile_path".to_owned(),
                reason: format!("unknown profile `{path}`"),
            }),
        },
    }
}
