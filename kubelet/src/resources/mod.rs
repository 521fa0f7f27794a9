//! What pods may use: quantities, QoS classes and the cgroups that enforce them.

pub mod cgroup;
pub mod qos;
pub mod quantity;
