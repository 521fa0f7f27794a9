//! Generates the CRI v1 messages, client and server from `cri-v1.proto`.

/// What the CRI server keeps in its records. These messages can also be written
/// and read as JSON, a missing field being its default.
const STORED: &[&str] = &[
    "Capability",
    "CDIDevice",
    "ContainerConfig",
    "ContainerMetadata",
    "Device",
    "DNSConfig",
    "HugepageLimit",
    "IDMapping",
    "ImageSpec",
    "Int64Value",
    "KeyValue",
    "LinuxContainerConfig",
    "LinuxContainerResources",
    "LinuxContainerSecurityContext",
    "LinuxPodSandboxConfig",
    "LinuxSandboxSecurityContext",
    "Mount",
    "NamespaceOption",
    "PodSandboxConfig",
    "PodSandboxMetadata",
    "PortMapping",
    "SecurityProfile",
    "SELinuxOption",
    "UserNamespace",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=cri-v1.proto");
    let descriptors = protox::compile(["cri-v1.proto"], ["."])?;
    let mut builder = tonic_prost_build::configure();
    for message in STORED {
        builder = builder.message_attribute(
            format!(".runtime.v1.{message}"),
            "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]",
        );
    }
    // Windows settings never reach a Linux node's records.
    for field in ["ContainerConfig.windows", "PodSandboxConfig.windows"] {
        builder = builder.field_attribute(format!(".runtime.v1.{field}"), "#[serde(skip)]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
