//! `RuntimeConfig`: what the kubelet must do as the runtime does.

use berth_proto::cri;

/// Tells the cgroup driver: plain directories.
pub fn runtime_config() -> cri::RuntimeConfigResponse {
    cri::RuntimeConfigResponse {
        linux: Some(cri::LinuxRuntimeConfiguration {
            cgroup_driver: cri::CgroupDriver::Cgroupfs.into(),
        }),
    }
}
