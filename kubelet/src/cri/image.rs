//! The image half of CRI.

use berth_proto::cri::{self as v1};

use super::{Cri, CriError, gone_is_fine, refused};

impl Cri {
    /// What the runtime knows of an image; `None` when it is not there.
    pub async fn image_status(&self, image: &str) -> Result<Option<v1::Image>, CriError> {
        let request = v1::ImageStatusRequest {
            image: Some(image_spec(image)),
            verbose: false,
        };
        Ok(self
            .call("ImageStatus", self.image.clone().image_status(request))
            .await?
            .image)
    }

    /// Every image on the node.
    pub async fn list_images(&self) -> Result<Vec<v1::Image>, CriError> {
        let request = v1::ListImagesRequest { filter: None };
        Ok(self
            .call("ListImages", self.image.clone().list_images(request))
            .await?
            .images)
    }

    /// Pulls an image, however long it takes; returns its reference on this node.
    pub async fn pull_image(
        &self,
        image: &str,
        auth: Option<v1::AuthConfig>,
        sandbox: v1::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = v1::PullImageRequest {
            image: Some(image_spec(image)),
            auth,
            sandbox_config: Some(sandbox),
        };
        self.image
            .clone()
            .pull_image(request)
            .await
            .map(|answer| answer.into_inner().image_ref)
            .map_err(|status| refused("PullImage", &status))
    }

    /// Removes an image; idempotent.
    pub async fn remove_image(&self, image: &str) -> Result<(), CriError> {
        let request = v1::RemoveImageRequest {
            image: Some(image_spec(image)),
        };
        gone_is_fine(
            self.call("RemoveImage", self.image.clone().remove_image(request))
                .await
                .map(drop),
        )
    }

    /// Use of the file systems that hold images and containers.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, CriError> {
        let request = v1::ImageFsInfoRequest {};
        self.call("ImageFsInfo", self.image.clone().image_fs_info(request))
            .await
    }
}

fn image_spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        user_specified_image: image.to_owned(),
        ..Default::default()
    }
}
