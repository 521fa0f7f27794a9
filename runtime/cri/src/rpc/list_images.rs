//! `ListImages`.

use berth_proto::cri;

use crate::image;
use crate::server::Server;

/// Lists all images, or the one the filter names.
pub fn list_images(server: &Server, request: cri::ListImagesRequest) -> cri::ListImagesResponse {
    let wanted = request
        .filter
        .and_then(|filter| filter.image)
        .unwrap_or_default()
        .image;
    let found = if wanted.is_empty() {
        server.images.list()
    } else {
        server.images.status(&wanted).into_iter().collect()
    };
    cri::ListImagesResponse {
        images: found.iter().map(image::to_cri).collect(),
    }
}
