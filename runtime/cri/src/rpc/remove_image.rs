//! `RemoveImage`: "removes the image; idempotent, and must not return an error if the image
//! has already been removed".

use berth_proto::cri;
use tonic::Status;

use crate::server::Server;
use crate::status;

/// Removes the image with all its names.
pub async fn remove_image(
    server: &Server,
    request: cri::RemoveImageRequest,
) -> Result<cri::RemoveImageResponse, Status> {
    let name = request.image.unwrap_or_default().image;
    if name.is_empty() {
        return Err(status::invalid("image.image", "is required"));
    }
    server.images.remove(&name).await.map_err(status::from)?;
    Ok(cri::RemoveImageResponse {})
}
