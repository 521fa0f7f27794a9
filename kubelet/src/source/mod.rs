//! Where desired pods come from: the API server, and files of this node.

pub mod apiserver;
pub mod file;
mod manifest;
pub mod merge;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

/// Which source said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Pods bound to this node in the API server.
    Api,
    /// The static pod directory.
    File,
}

/// What a source says.
#[derive(Debug, Clone)]
pub enum SourceEvent {
    /// All pods of the source; what is not among them is gone.
    Snapshot { origin: Origin, pods: Vec<Pod> },
    /// A pod is new or has changed.
    Set { origin: Origin, pod: Box<Pod> },
    /// A pod is gone.
    Gone { origin: Origin, pod: Box<Pod> },
}

/// What the sync loop is told, after the sources have been merged.
#[derive(Debug, Clone)]
pub enum PodUpdate {
    /// A pod is wanted in this form.
    Set(Arc<Pod>),
    /// A pod is no longer wanted.
    Gone(Arc<Pod>),
    /// The API server has this mirror of a static pod.
    Mirror(Arc<Pod>),
    /// The API server no longer has this mirror.
    MirrorGone(Arc<Pod>),
    /// The source has said everything it has for the first time.
    Synced(Origin),
}
