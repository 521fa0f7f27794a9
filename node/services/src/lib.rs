//! The cluster's Services and EndpointSlices, followed once for every part of a node:
//! two watches and one copy, however many read them.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tracing::warn;

/// What is known of Services now, and word of changes. A clone is another reader.
#[derive(Clone)]
pub struct Services {
    services: reflector::Store<Service>,
    slices: reflector::Store<EndpointSlice>,
    changes: watch::Receiver<()>,
}

impl Services {
    /// The readers' end, and the work that feeds it, which ends with the last reader.
    /// A watch that fails is tried again for ever.
    pub fn follow(client: Client) -> (Services, impl Future<Output = ()> + Send) {
        let (services, service_changes) = reflect::<Service>(Api::all(client.clone()));
        let (slices, slice_changes) = reflect::<EndpointSlice>(Api::all(client));
        let (publish, changes) = watch::channel(());
        let work = async move {
            let mut seen = futures::stream::select(service_changes, slice_changes);
            loop {
                tokio::select! {
                    () = publish.closed() => return,
                    change = seen.next() => match change {
                        Some(()) => { publish.send_replace(()); }
                        None => return,
                    },
                }
            }
        };
        let readers = Services {
            services,
            slices,
            changes,
        };
        (readers, work)
    }

    /// Waits for a change after those this reader has seen; false when there will be no
    /// more. Cancel-safe.
    pub async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }

    /// Everything as it is now, with which the changes so far count as seen.
    pub fn now(&mut self) -> (Vec<Arc<Service>>, Vec<Arc<EndpointSlice>>) {
        self.changes.mark_unchanged();
        (self.services.state(), self.slices.state())
    }
}

fn reflect<K>(api: Api<K>) -> (reflector::Store<K>, impl Stream<Item = ()> + Unpin + Send)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    K: for<'de> serde::Deserialize<'de>,
{
    let (store, writer) = reflector::store();
    let changes = watcher(api, watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .filter_map(async |event| match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Ok(_) => Some(()),
            Err(error) => {
                warn!(%error, "watch of {} failed; trying again", K::kind(&()));
                None
            }
        });
    (store, Box::pin(changes))
}
