//! The RuntimeService: every RPC by name, those that are not there refused by name.

use berth_proto::cri;
use cri::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::*;
use crate::status::unimplemented;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for RuntimeRpcs {
    type StreamPodSandboxesStream = NoStream<cri::StreamPodSandboxesResponse>;
    type StreamContainersStream = NoStream<cri::StreamContainersResponse>;
    type StreamContainerStatsStream = NoStream<cri::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = NoStream<cri::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = NoStream<cri::StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = get_container_events::Events;

    async fn version(
        &self,
        _request: Request<cri::VersionRequest>,
    ) -> Answer<cri::VersionResponse> {
        Ok(Response::new(version::version()))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        Ok(Response::new(
            status::status(&self.0, request.into_inner()).await,
        ))
    }

    async fn runtime_config(
        &self,
        _request: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        Ok(Response::new(runtime_config::runtime_config()))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        Ok(Response::new(update_runtime_config::update_runtime_config(
            &self.0,
            request.into_inner(),
        )))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        Ok(Response::new(
            run_pod_sandbox::run_pod_sandbox(&self.0, request.into_inner()).await?,
        ))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        Ok(Response::new(
            stop_pod_sandbox::stop_pod_sandbox(&self.0, request.into_inner()).await?,
        ))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        Ok(Response::new(
            remove_pod_sandbox::remove_pod_sandbox(&self.0, request.into_inner()).await?,
        ))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        Ok(Response::new(pod_sandbox_status::pod_sandbox_status(
            &self.0,
            request.into_inner(),
        )?))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        Ok(Response::new(list_pod_sandbox::list_pod_sandbox(
            &self.0,
            request.into_inner(),
        )))
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        Ok(Response::new(
            create_container::create_container(&self.0, request.into_inner()).await?,
        ))
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        Ok(Response::new(
            start_container::start_container(&self.0, &caller::who(&request), request.into_inner())
                .await?,
        ))
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        Ok(Response::new(
            stop_container::stop_container(&self.0, request.into_inner()).await?,
        ))
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        Ok(Response::new(
            remove_container::remove_container(&self.0, request.into_inner()).await?,
        ))
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        Ok(Response::new(list_containers::list_containers(
            &self.0,
            request.into_inner(),
        )))
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        Ok(Response::new(container_status::container_status(
            &self.0,
            request.into_inner(),
        )?))
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        Ok(Response::new(
            update_container_resources::update_container_resources(
                &self.0,
                &caller::who(&request),
                request.into_inner(),
            )
            .await?,
        ))
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        Ok(Response::new(
            reopen_container_log::reopen_container_log(&self.0, request.into_inner()).await?,
        ))
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Answer<cri::ExecSyncResponse> {
        Ok(Response::new(
            exec_sync::exec_sync(&self.0, &caller::who(&request), request.into_inner()).await?,
        ))
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        Ok(Response::new(exec::exec(
            &self.0,
            &caller::who(&request),
            request.into_inner(),
        )?))
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        Ok(Response::new(attach::attach(
            &self.0,
            request.into_inner(),
        )?))
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        Ok(Response::new(port_forward::port_forward(
            &self.0,
            request.into_inner(),
        )?))
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        Ok(Response::new(
            container_stats::container_stats(&self.0, request.into_inner()).await?,
        ))
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        Ok(Response::new(
            container_stats::list_container_stats(&self.0, request.into_inner()).await,
        ))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        Ok(Response::new(
            pod_sandbox_stats::pod_sandbox_stats(&self.0, request.into_inner()).await?,
        ))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        Ok(Response::new(
            pod_sandbox_stats::list_pod_sandbox_stats(&self.0, request.into_inner()).await,
        ))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        Err(unimplemented("CheckpointContainer"))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        Err(unimplemented("ListMetricDescriptors"))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        Err(unimplemented("ListPodSandboxMetrics"))
    }

    async fn update_pod_sandbox_resources(
        &self,
        _request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        Err(unimplemented("UpdatePodSandboxResources"))
    }

    async fn get_container_events(
        &self,
        request: Request<cri::GetEventsRequest>,
    ) -> Answer<Self::GetContainerEventsStream> {
        let events = get_container_events::get_container_events(&self.0, request.metadata())?;
        Ok(Response::new(events))
    }

    async fn stream_pod_sandboxes(
        &self,
        _request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        Err(unimplemented("StreamPodSandboxes"))
    }

    async fn stream_containers(
        &self,
        _request: Request<cri::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        Err(unimplemented("StreamContainers"))
    }

    async fn stream_container_stats(
        &self,
        _request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        Err(unimplemented("StreamContainerStats"))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        _request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        Err(unimplemented("StreamPodSandboxStats"))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        Err(unimplemented("StreamPodSandboxMetrics"))
    }
}
