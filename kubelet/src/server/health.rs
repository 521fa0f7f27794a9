//! `/healthz` on loopback, for supervisors.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::cri::Cri;

/// Why the health endpoint could not be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve health on {address}")]
pub struct HealthError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// Serves `/healthz` until dropped: `ok`, or 500 with the reason when the CRI server does
/// not answer.
///
/// # Errors
/// When the address cannot be bound or the listener fails.
pub async fn serve(address: SocketAddr, cri: Cri) -> Result<(), HealthError> {
    let failed = |source| HealthError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let healthz = move || {
        let cri = cri.clone();
        async move {
            match cri.version().await {
                Ok(_) => (http::StatusCode::OK, "ok".to_owned()),
                Err(error) => (
                    http::StatusCode::INTERNAL_SERVER_ERROR,
                    format!("[-]cri failed: {error}"),
                ),
            }
        }
    };
    let router = Router::new().route("/healthz", get(healthz));
    axum::serve(listener, router).await.map_err(failed)
}
