//! The CRI server through its own sockets: a client as a kubelet has one, a streaming
//! client as kubectl has one, a registry with an image made of this host's programs, and
//! a server in a process of its own that can be killed.

pub mod audit;
pub mod client;
pub mod node;
pub mod registry;
pub mod rootfs;
pub mod stream;
