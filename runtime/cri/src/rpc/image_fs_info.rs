//! `ImageFsInfo`: use of the file system that holds images and writable layers.

use berth_proto::cri;

use crate::server::Server;
use crate::time;

/// Tells the use; images and containers share one file system.
pub fn image_fs_info(server: &Server) -> cri::ImageFsInfoResponse {
    let used = server.images.fs_usage();
    let usage = cri::FilesystemUsage {
        timestamp: time::now(),
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: used.mountpoint.display().to_string(),
        }),
        used_bytes: Some(cri::UInt64Value {
            value: used.used_bytes,
        }),
        inodes_used: Some(cri::UInt64Value {
            value: used.inodes_used,
        }),
    };
    cri::ImageFsInfoResponse {
        image_filesystems: vec![usage.clone()],
        container_filesystems: vec![usage],
    }
}
