//! The ImageService: every RPC by name, those that are not there refused by name.

use berth_proto::cri;
use cri::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use super::*;
use crate::status::unimplemented;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for ImageRpcs {
    type StreamImagesStream = NoStream<cri::StreamImagesResponse>;

    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Answer<cri::ListImagesResponse> {
        Ok(Response::new(list_images::list_images(
            &self.0,
            request.into_inner(),
        )))
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        image_status::image_status(&self.0, request.into_inner()).map(Response::new)
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Answer<cri::PullImageResponse> {
        Ok(Response::new(
            pull_image::pull_image(&self.0, &caller::who(&request), request.into_inner()).await?,
        ))
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Answer<cri::RemoveImageResponse> {
        Ok(Response::new(
            remove_image::remove_image(&self.0, request.into_inner()).await?,
        ))
    }

    async fn image_fs_info(
        &self,
        _request: Request<cri::ImageFsInfoRequest>,
    ) -> Answer<cri::ImageFsInfoResponse> {
        Ok(Response::new(image_fs_info::image_fs_info(&self.0)))
    }

    async fn stream_images(
        &self,
        _request: Request<cri::StreamImagesRequest>,
    ) -> Answer<Self::StreamImagesStream> {
        Err(unimplemented("StreamImages"))
    }
}
