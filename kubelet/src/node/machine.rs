//! What the kernel and the distribution say of this machine (`status.nodeInfo`).

use k8s_openapi::api::core::v1::NodeSystemInfo;

/// The Kubernetes version whose behaviour this kubelet has.
pub const KUBELET_VERSION: &str = concat!("v1.36.3+berth", env!("CARGO_PKG_VERSION"));

/// `status.nodeInfo`; `runtime` is `name://version`.
#[must_use]
pub fn system_info(runtime: &str) -> NodeSystemInfo {
    let uname = rustix::system::uname();
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime.to_owned(),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        // The field must be there; no kube-proxy of that name runs here.
        kube_proxy_version: String::new(),
        kubelet_version: KUBELET_VERSION.to_owned(),
        machine_id: line("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: os_image(),
        system_uuid: line("/sys/class/dmi/id/product_uuid"),
        ..NodeSystemInfo::default()
    }
}

/// The architecture in Go's words, as node labels have it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    pretty.map_or_else(
        || "Linux".to_owned(),
        |name| name.trim_matches('"').to_owned(),
    )
}
