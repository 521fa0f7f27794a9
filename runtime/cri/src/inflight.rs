//! Operations that outlive the call that started them.
//!
//! A kubelet gives up on a slow call and calls again. The operation is a task of the
//! server, not of the call: the second call joins it and gets the same result. Without
//! this the retry meets its own half-made predecessor ("name is reserved").

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Running operations by key; `T` is their outcome.
pub struct InFlight<K, T> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>,
    tasks: TaskTracker,
}

impl<K, T> Clone for InFlight<K, T> {
    fn clone(&self) -> Self {
        InFlight {
            running: self.running.clone(),
            tasks: self.tasks.clone(),
        }
    }
}

/// Takes the key out also when the operation panics, so that a retry can run.
struct Entry<K: Eq + Hash, T> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<T>>>>>,
    key: K,
}

impl<K: Eq + Hash, T> Drop for Entry<K, T> {
    fn drop(&mut self) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}

impl<K, T> InFlight<K, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// No operation; new ones are tasks of `tasks`.
    pub fn new(tasks: TaskTracker) -> Self {
        InFlight {
            running: Arc::default(),
            tasks,
        }
    }

    /// The outcome of the operation running under `key`, or of `operation`, started now.
    /// None when the operation panicked. The caller may be dropped at any time.
    pub async fn join<F>(&self, key: K, operation: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut outcome = self.running_or_new(key, operation);
        let seen = outcome.wait_for(Option::is_some).await.ok()?;
        seen.clone()
    }

    /// Waits until no operation runs under `key`.
    pub async fn settled(&self, key: &K) {
        let running = self.lock().get(key).cloned();
        if let Some(mut outcome) = running {
            // A panic is an end too.
            let _ = outcome.wait_for(Option::is_some).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Receiver<Option<T>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running_or_new<F>(&self, key: K, operation: impl FnOnce() -> F) -> watch::Receiver<Option<T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut running = self.lock();
        if let Some(outcome) = running.get(&key) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        running.insert(key.clone(), outcome.clone());
        let entry = Entry {
            running: self.running.clone(),
            key,
        };
        let operation = operation();
        self.tasks.spawn(async move {
            let result = operation.await;
            // The outcome is visible before the key is free: no second run in between.
            sender.send_replace(Some(result));
            drop(entry);
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    async fn count(runs: Arc<AtomicU32>, gate: Arc<tokio::sync::Notify>) -> u32 {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        gate.notified().await;
        run
    }

    #[tokio::test]
    async fn a_retry_joins_the_operation_its_first_call_left() {
        let inflight = InFlight::new(TaskTracker::new());
        let (runs, gate) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(tokio::sync::Notify::new()),
        );
        let first = inflight.join("pod", || count(runs.clone(), gate.clone()));
        assert!(
            tokio::time::timeout(Duration::from_millis(5), first)
                .await
                .is_err()
        );
        let retry = inflight.join("pod", || count(runs.clone(), gate.clone()));
        gate.notify_one();
        assert_eq!(retry.await, Some(1));
        gate.notify_one();
        assert_eq!(
            inflight
                .join("pod", || count(runs.clone(), gate.clone()))
                .await,
            Some(2)
        );
    }

    #[tokio::test]
    async fn who_waits_for_an_operation_goes_on_when_it_ends() {
        let inflight = InFlight::new(TaskTracker::new());
        inflight.settled(&"pod").await;
        let gate = Arc::new(tokio::sync::Notify::new());
        let running = inflight.join("pod", || count(Arc::default(), gate.clone()));
        let settled = inflight.settled(&"pod");
        let opened = async { gate.notify_one() };
        let ((), outcome, ()) = tokio::join!(settled, running, opened);
        assert_eq!(outcome, Some(1));
    }

    #[tokio::test]
    async fn a_panic_frees_the_key() {
        let inflight: InFlight<_, u32> = InFlight::new(TaskTracker::new());
        assert_eq!(inflight.join(1, || async { panic!("broken") }).await, None);
        assert_eq!(inflight.join(1, || async { 7 }).await, Some(7));
    }
}
