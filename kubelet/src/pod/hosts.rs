//! The pod's /etc/hosts.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::{dns, host_network, uid};
use crate::config::Config;

const HEADER: &str = "# Kubernetes-managed hosts file";

/// Why the hosts file could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the hosts file `{}`", path.display())]
pub struct HostsError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Writes the pod's hosts file below its directory and returns where.
///
/// # Errors
/// When the file cannot be written, or the host's own cannot be read.
pub fn ensure(pod: &Pod, ips: &[String], config: &Config) -> Result<PathBuf, HostsError> {
    let path = config.pod_dir(uid(pod)).join("etc-hosts");
    write(&path, pod, ips, config).map_err(|source| HostsError {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn write(path: &Path, pod: &Pod, ips: &[String], config: &Config) -> std::io::Result<()> {
    let text = if host_network(pod) {
        let own = std::fs::read_to_string("/etc/hosts")?;
        format!("{HEADER} (host network).\n{own}{}", aliases(pod))
    } else {
        content(pod, ips, config)
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // In place: running containers have this very file mounted.
    std::fs::write(path, text)
}

fn content(pod: &Pod, ips: &[String], config: &Config) -> String {
    let mut text = format!(
        "{HEADER}.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n"
    );
    let (host, domain) = dns::hostname(pod, config);
    for ip in ips {
        // Writing to a String cannot fail.
        let _ = match &domain {
            Some(domain) => writeln!(text, "{ip}\t{host}.{domain}\t{host}"),
            None => writeln!(text, "{ip}\t{host}"),
        };
    }
    text.push_str(&aliases(pod));
    text
}

fn aliases(pod: &Pod) -> String {
    let all = pod.spec.as_ref().and_then(|s| s.host_aliases.as_ref());
    let Some(all) = all.filter(|a| !a.is_empty()) else {
        return String::new();
    };
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in all {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::testing::pod;

    #[test]
    fn names_addresses_and_aliases_stand_in_it() {
        let config = Config::resolve(RawConfig {
            node_name: Some("n1".into()),
            ..RawConfig::default()
        })
        .unwrap();
        let pod = pod(
            "{subdomain: s, hostAliases: [{ip: 10.1.1.1, hostnames: [a, b]}],
            containers: []}",
        );
        let text = content(&pod, &["10.88.0.2".into()], &config);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.88.0.2\tweb.s.default.svc.cluster.local\tweb\n"));
        assert!(text.ends_with("# Entries added by HostAliases.\n10.1.1.1\ta\tb\n"));
    }
}
