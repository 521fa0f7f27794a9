//! `PullImage`: "pulls an image with authentication config". Ends with its call: an image
//! must not appear after its client gave up.

use berth_image::Reference;
use berth_proto::cri;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::audit;
use crate::image;
use crate::server::Server;
use crate::status;

/// Pulls the image and tells what to call it.
pub async fn pull_image(
    server: &Server,
    who: &str,
    request: cri::PullImageRequest,
) -> Result<cri::PullImageResponse, Status> {
    let name = request.image.unwrap_or_default().image;
    let reference = Reference::parse(&name).map_err(status::from)?;
    let credentials = image::credentials(request.auth.as_ref()).map_err(status::from)?;
    server.audit.ready().await.map_err(status::from)?;
    let cancel = CancellationToken::new();
    // Dropped with the call, also when the client's deadline ends it.
    let _with_the_call = cancel.clone().drop_guard();
    let pulled = server.images.pull(&reference, credentials.as_ref(), cancel);
    let pulled = super::until_ending(server, pulled)
        .await?
        .map_err(status::from)?;
    let event = audit::pull(request.sandbox_config.as_ref(), &pulled, &reference, who);
    server.audit.append(event).await.map_err(status::from)?;
    // The id, which is the same whatever registry it came from.
    Ok(cri::PullImageResponse {
        image_ref: pulled.id.to_string(),
    })
}
