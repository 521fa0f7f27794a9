//! The HTTPS listener: accepts, authorises, routes.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Identity, authorize};
use super::metrics::Metrics;
use super::reply::{self, Refusal, Reply};
use super::route::{Query, Route, parse};
use super::tls::{TlsError, server_config};
use super::view::PodView;
use super::{exec, logs, pods, stats};
use crate::config::Config;

/// A client must finish the TLS handshake and send its request's head within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for instance for want of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Why the endpoints are not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate or the client CA cannot be used.
    #[error("cannot serve HTTPS")]
    Tls(#[source] TlsError),
    /// The port cannot be bound.
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// Serves the HTTPS endpoints on `config.port` of every address until `shutdown`; dropping
/// the future ends every connection too. Port 0 means no server: then only `shutdown` is
/// awaited.
///
/// # Errors
/// When the certificates are unusable or the port is taken.
pub async fn serve(
    view: PodView,
    config: Arc<Config>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    if config.port == 0 {
        shutdown.await;
        return Ok(());
    }
    let any = match config.node_ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let address = SocketAddr::new(any, config.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { address, source })?;
    serve_on(listener, view, &config, shutdown).await
}

/// Serves on a bound listener.
pub(super) async fn serve_on(
    listener: TcpListener,
    view: PodView,
    config: &Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let tls = server_config(config).map_err(ServeError::Tls)?;
    let endpoints = Arc::new(Endpoints {
        metrics: Metrics::new(&config.node_name),
        node: config.node_name.clone(),
        tasks: Tasks::default(),
        view,
    });
    let _end_all = endpoints.tasks.stop.clone().drop_guard();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return Ok(()),
            // Cancel-safe: a connection not taken stays in the queue.
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let served = connection(endpoints.clone(), acceptor.clone(), stream);
                endpoints.tasks.spawn(served);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Owns the tasks of connections and streams: they end with the server.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs `task` until it or the server ends.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled_owned(task).await;
        });
    }
}

/// Everything an answer is made from.
struct Endpoints {
    view: PodView,
    node: String,
    metrics: Metrics,
    tasks: Tasks,
}

async fn connection(endpoints: Arc<Endpoints>, acceptor: TlsAcceptor, stream: TcpStream) {
    // Small frames of a terminal must not wait for each other.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await else {
        return;
    };
    let shown = stream.get_ref().1.peer_certificates();
    let shown = shown.and_then(|chain| chain.first());
    let identity = Arc::new(shown.and_then(Identity::of));
    let service = service_fn(move |request| {
        let (endpoints, identity) = (endpoints.clone(), identity.clone());
        async move { Ok::<_, Infallible>(answer(&endpoints, identity.as_ref().as_ref(), request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn answer(
    endpoints: &Endpoints,
    identity: Option<&Identity>,
    request: Request<Incoming>,
) -> Reply {
    let route = parse(request.method(), request.uri().path());
    let label = route.as_ref().map_or("other", Route::label);
    let reply = match admit(route, identity) {
        Ok(route) => endpoints.perform(route, identity, request).await,
        Err(refusal) => Err(refusal),
    };
    let reply = reply.unwrap_or_else(Refusal::reply);
    endpoints.metrics.answered(label, reply.status());
    reply
}

/// Health is open to everyone; of everything else not even its absence is told.
fn admit(route: Result<Route, Refusal>, identity: Option<&Identity>) -> Result<Route, Refusal> {
    if !matches!(route, Ok(Route::Healthz)) {
        authorize(identity)?;
    }
    route
}

impl Endpoints {
    async fn perform(
        &self,
        route: Route,
        identity: Option<&Identity>,
        request: Request<Incoming>,
    ) -> Result<Reply, Refusal> {
        let (view, tasks) = (&self.view, &self.tasks);
        let user = identity.map(|identity| identity.user.as_str());
        let path = request.uri().path();
        match &route {
            Route::Exec(_) | Route::Attach(_) | Route::Run(_) | Route::PortForward(_) => {
                tracing::info!(user, path, "a stream into a pod is opened");
            }
            _ => tracing::debug!(user, path, "request"),
        }
        let query = Query::parse(request.uri().query());
        match route {
            Route::Healthz => match view.cri().version().await {
                Ok(_) => Ok(reply::text(http::StatusCode::OK, "ok")),
                Err(error) => Err(Refusal::internal(format!("[-]cri failed: {error}"))),
            },
            Route::Metrics => self.metrics.reply(view),
            Route::Pods => pods::pods(view),
            Route::RunningPods => pods::running_pods(view),
            Route::StatsSummary => stats::summary(view, &self.node).await,
            Route::Logs(target) => logs::logs(view, &target, &query).await,
            Route::Exec(target) => exec::exec(view, &target, request, tasks).await,
            Route::Attach(target) => exec::attach(view, &target, request, tasks).await,
            Route::Run(target) => exec::run(view, &target, &query).await,
            Route::PortForward(target) => exec::port_forward(view, &target, request, tasks).await,
        }
    }
}
