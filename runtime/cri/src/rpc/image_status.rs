//! `ImageStatus`: "returns the status of the image; if the image is not present, returns a
//! response with ImageStatusResponse.Image set to nil".

use std::collections::HashMap;

use berth_image::{Reference, ReferenceError};
use berth_proto::cri;
use tonic::Status;

use crate::image;
use crate::server::Server;
use crate::status;

/// Tells the image, if it is there. What can be no image's name is told apart from what is
/// absent: a kubelet need not try to pull it.
pub fn image_status(
    server: &Server,
    request: cri::ImageStatusRequest,
) -> Result<cri::ImageStatusResponse, Status> {
    let name = request.image.unwrap_or_default().image;
    let found = server.images.status(&name);
    if found.is_none() && !name.is_empty() {
        match Reference::parse(&name) {
            // An image id names nothing that could be pulled, and is right all the same.
            Ok(_) | Err(ReferenceError::LooksLikeId) => {}
            Err(error) => return Err(status::from(error)),
        }
    }
    let mut info = HashMap::new();
    if let (true, Some(found)) = (request.verbose, &found) {
        let config = serde_json::json!({ "imageSpec": found.config });
        info.insert("info".to_owned(), config.to_string());
    }
    Ok(cri::ImageStatusResponse {
        image: found.as_ref().map(image::to_cri),
        info,
    })
}
