//! `ImageStatus`: "returns the status of the image; if the image is not present, returns a
//! response with ImageStatusResponse.Image set to nil".

use std::collections::HashMap;

use berth_proto::cri;

use crate::image;
use crate::server::Server;

/// Tells the image, if it is there.
pub fn image_status(server: &Server, request: cri::ImageStatusRequest) -> cri::ImageStatusResponse {
    let name = request.image.unwrap_or_default().image;
    let found = server.images.status(&name);
    let mut info = HashMap::new();
    if let (true, Some(found)) = (request.verbose, &found) {
        let config = serde_json::json!({ "imageSpec": found.config });
        info.insert("info".to_owned(), config.to_string());
    }
    cri::ImageStatusResponse {
        image: found.as_ref().map(image::to_cri),
        info,
    }
}
