//! ConfigMaps, Secrets and Services that pods of this node refer to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::Api;
use kube::api::ListParams;

/// How long an object read once is taken as current.
const FRESH: Duration = Duration::from_secs(1);

/// A cheap handle; what was found is remembered for a moment, so that a pod of ten
/// containers asks once, and for as long as the API server does not answer, so that
/// containers restart without it.
#[derive(Clone)]
pub struct Objects {
    client: Option<kube::Client>,
    found: Arc<Mutex<Found>>,
}

#[derive(Default)]
struct Found {
    config_maps: Known<ConfigMap>,
    secrets: Known<Secret>,
    services: Option<(Instant, Arc<Vec<Service>>)>,
}

type Known<K> = HashMap<(String, String), (Instant, K)>;

/// Most objects that are remembered of a kind.
const MAX_KNOWN: usize = 512;

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects")
            .field("connected", &self.client.is_some())
            .finish_non_exhaustive()
    }
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no API server to ask.
    #[error("{kind} `{namespace}/{name}`: this node has no API server")]
    NoApiServer {
        kind: &'static str,
        namespace: String,
        name: String,
    },
    /// The API server refused or could not be reached.
    #[error("cannot read {kind} `{namespace}/{name}`")]
    Read {
        kind: &'static str,
        namespace: String,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
}

impl Objects {
    /// Objects read through `client`; without one every read fails by name.
    #[must_use]
    pub fn new(client: Option<kube::Client>) -> Objects {
        Objects {
            client,
            found: Arc::default(),
        }
    }

    /// The client, where there is an API server.
    #[must_use]
    pub fn client(&self) -> Option<&kube::Client> {
        self.client.as_ref()
    }

    /// A ConfigMap; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the API server refuses, or cannot be asked and the object was never read.
    pub async fn config_map(&self, ns: &str, name: &str) -> Result<Option<ConfigMap>, ObjectError> {
        self.get("ConfigMap", (ns, name), |found| &mut found.config_maps)
            .await
    }

    /// A Secret; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the API server refuses, or cannot be asked and the object was never read.
    pub async fn secret(&self, ns: &str, name: &str) -> Result<Option<Secret>, ObjectError> {
        self.get("Secret", (ns, name), |found| &mut found.secrets)
            .await
    }

    /// All Services of the cluster; none without an API server.
    ///
    /// # Errors
    /// When the API server refuses, or cannot be asked and Services were never read.
    pub async fn services(&self) -> Result<Arc<Vec<Service>>, ObjectError> {
        let Some(client) = &self.client else {
            return Ok(Arc::default());
        };
        let known = self.lock().services.clone();
        if let Some((at, services)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(services.clone());
        }
        let api = Api::<Service>::all(client.clone());
        match (api.list(&ListParams::default()).await, known) {
            (Ok(listed), _) => {
                let services = Arc::new(listed.items);
                self.lock().services = Some((Instant::now(), services.clone()));
                Ok(services)
            }
            (Err(error), Some((_, services))) if is_outage(&error) => Ok(services),
            (Err(source), _) => Err(ObjectError::Read {
                kind: "Services",
                namespace: "*".into(),
                name: "*".into(),
                source: Box::new(source),
            }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get<K>(
        &self,
        kind: &'static str,
        (ns, name): (&str, &str),
        part: fn(&mut Found) -> &mut Known<K>,
    ) -> Result<Option<K>, ObjectError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let key = (ns.to_owned(), name.to_owned());
        let known = part(&mut self.lock()).get(&key).cloned();
        if let Some((at, object)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(Some(object.clone()));
        }
        match (self.fetch::<K>(kind, ns, name).await, known) {
            (Ok(found), _) => {
                let mut all = self.lock();
                let part = part(&mut all);
                if part.len() > MAX_KNOWN {
                    part.clear();
                }
                match &found {
                    Some(object) => part.insert(key, (Instant::now(), object.clone())),
                    None => part.remove(&key),
                };
                Ok(found)
            }
            (Err(ObjectError::Read { source, .. }), Some((_, object))) if is_outage(&source) => {
                Ok(Some(object))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn fetch<K>(
        &self,
        kind: &'static str,
        ns: &str,
        name: &str,
    ) -> Result<Option<K>, ObjectError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let Some(client) = &self.client else {
            return Err(ObjectError::NoApiServer {
                kind,
                namespace: ns.to_owned(),
                name: name.to_owned(),
            });
        };
        Api::<K>::namespaced(client.clone(), ns)
            .get_opt(name)
            .await
            .map_err(|source| ObjectError::Read {
                kind,
                namespace: ns.to_owned(),
                name: name.to_owned(),
                source: Box::new(source),
            })
    }
}

/// The API server did not answer, as opposed to answering no.
fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500,
        _ => true,
    }
}
