//! Service account tokens bound to a pod (TokenRequest, KEP-1205), renewed in time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::Api;
use kube::api::PostParams;

use super::SourceError;
use crate::objects::Objects;
use crate::pod::{name, namespace, uid};

/// `expirationSeconds` of a projection that names none.
const DEFAULT_SECONDS: i64 = 3600;
/// A token is renewed after this at the latest, however long it is good for.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// A cheap handle on the tokens issued for pods of this node.
#[derive(Clone, Debug)]
pub struct Tokens {
    objects: Objects,
    issued: Arc<Mutex<HashMap<Key, Issued>>>,
}

/// Pod UID, service account, audience, requested seconds.
type Key = (String, String, String, i64);

#[derive(Clone)]
struct Issued {
    token: String,
    renew: Instant,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("renew", &self.renew)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens issued by the API server behind `objects`.
    pub fn new(objects: Objects) -> Tokens {
        Tokens {
            objects,
            issued: Arc::default(),
        }
    }

    /// The pod's token for a projection, a new one once 80 % of the old one's time or a
    /// day have gone. When there is no new one to be had, the old one is given.
    pub async fn get(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
    ) -> Result<String, SourceError> {
        let account = pod
            .spec
            .as_ref()
            .and_then(|s| s.service_account_name.as_deref());
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let seconds = projection.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let audience = projection.audience.clone().unwrap_or_default();
        let key = (uid(pod).to_owned(), account.to_owned(), audience, seconds);
        let old = self.lock().get(&key).cloned();
        if let Some(old) = &old
            && Instant::now() < old.renew
        {
            return Ok(old.token.clone());
        }
        match (self.request(pod, &key).await, old) {
            (Ok(new), _) => {
                let token = new.token.clone();
                self.lock().insert(key, new);
                Ok(token)
            }
            (Err(error), Some(old)) => {
                tracing::warn!(
                    pod = key.0,
                    error = crate::chain::chain(&error),
                    "a token stays as it was"
                );
                Ok(old.token)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        self.lock().retain(|key, _| key.0 != pod_uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Issued>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, pod: &Pod, key: &Key) -> Result<Issued, SourceError> {
        let client = self.objects.client().ok_or(SourceError::NoTokens)?;
        let (_, account, audience, seconds) = key;
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: (!audience.is_empty()).then(|| vec![audience.clone()]),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(name(pod).to_owned()),
                    uid: Some(uid(pod).to_owned()),
                }),
                expiration_seconds: Some(*seconds),
            }),
            ..TokenRequest::default()
        };
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace(pod));
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| SourceError::Token(Box::new(error)))?;
        let status = answer.status.unwrap_or_default();
        let token = status.token.filter(|token| !token.is_empty());
        let expires = status.expiration_timestamp.map(|time| time.0);
        Ok(Issued {
            token: token.ok_or(SourceError::EmptyToken)?,
            renew: Instant::now() + good_for(expires, *seconds, Timestamp::now()),
        })
    }
}

/// How long a token is used: 80 % of its time, a day at most.
fn good_for(expires: Option<Timestamp>, asked: i64, now: Timestamp) -> Duration {
    let seconds = expires.map_or(asked, |at| at.duration_since(now).as_secs());
    let seconds = u64::try_from(seconds).unwrap_or_default();
    (Duration::from_secs(seconds) * 4 / 5).min(MAX_AGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths() {
        let now = Timestamp::UNIX_EPOCH;
        let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        for (expires, asked, seconds) in [
            (at(3600), 600, 2880),
            (None, 600, 480),
            (at(-5), 600, 0),
            (at(365 * 24 * 3600), 0, 24 * 3600),
        ] {
            let got = good_for(expires, asked, now).as_secs();
            assert_eq!(got, seconds, "{expires:?} {asked}");
        }
    }

    #[tokio::test]
    async fn without_an_api_server_there_is_no_token() {
        let tokens = Tokens::new(Objects::new(None));
        let projection = ServiceAccountTokenProjection::default();
        let got = tokens
            .get(&crate::testing::pod_of(&[], "Never"), &projection)
            .await;
        assert!(matches!(got, Err(SourceError::NoTokens)));
    }
}
