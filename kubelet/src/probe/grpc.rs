//! The gRPC health check (`grpc.health.v1.Health/Check`), its two messages by hand.

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::transport::Endpoint;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Why a health check did not pass.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// No connection in time.
    #[error("timeout: failed to connect service \"{address}\" within {limit:?}: {reason}")]
    Connect {
        address: String,
        limit: Duration,
        reason: String,
    },
    /// The call failed.
    #[error("rpc error: {0}")]
    Call(String),
    /// The service answers that it is not healthy.
    #[error("service unhealthy (responded with status {0})")]
    Unhealthy(i32),
}

/// Asks the service at `host:port` whether it is healthy.
///
/// # Errors
/// Unless it answers SERVING within `limit`.
pub async fn check(host: &str, port: i32, service: &str, limit: Duration) -> Result<(), GrpcError> {
    let address = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let unreachable = |reason: String| GrpcError::Connect {
        address: address.clone(),
        limit,
        reason,
    };
    let endpoint = Endpoint::try_from(format!("http://{address}"))
        .map_err(|error| unreachable(error.to_string()))?
        .connect_timeout(limit)
        .timeout(limit);
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let mut client = tonic::client::Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let codec: tonic_prost::ProstCodec<HealthCheckRequest, HealthCheckResponse> =
        tonic_prost::ProstCodec::default();
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = client
        .unary(tonic::Request::new(request), path, codec)
        .await
        .map_err(|status| GrpcError::Call(status.to_string()))?;
    match answer.into_inner().status {
        1 => Ok(()),
        other => Err(GrpcError::Unhealthy(other)),
    }
}
