//! What a failed operation takes back: steps run last first, all of them, whatever
//! fails on the way.

use std::fmt;

use futures::future::BoxFuture;

/// A step that failed while undoing.
#[derive(Debug)]
pub struct UndoFailure {
    /// What was to be undone.
    pub step: &'static str,
    /// Why it was not, with its causes.
    pub reason: String,
}

impl fmt::Display for UndoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.reason)
    }
}

type Step = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), String>> + Send>;

/// A stack of steps. [`Undo::commit`] forgets them, [`Undo::run`] performs them.
#[derive(Default)]
pub struct Undo {
    steps: Vec<(&'static str, Step)>,
}

impl Undo {
    /// An empty stack.
    pub fn new() -> Self {
        Undo::default()
    }

    /// Adds what takes back the effect that is about to happen.
    pub fn push<F, E>(&mut self, step: &'static str, undo: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + 'static,
    {
        let boxed: Step = Box::new(move || {
            let undone = undo();
            Box::pin(async move { undone.await.map_err(|error| crate::status::chain(&error)) })
        });
        self.steps.push((step, boxed));
    }

    /// The operation succeeded: nothing is taken back.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Takes everything back, last first, and tells what could not be.
    pub async fn run(mut self) -> Vec<UndoFailure> {
        let mut failures = Vec::new();
        while let Some((step, undo)) = self.steps.pop() {
            if let Err(reason) = undo().await {
                failures.push(UndoFailure { step, reason });
            }
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn noted(
        log: &Arc<Mutex<Vec<u8>>>,
        id: u8,
        fails: bool,
    ) -> impl Future<Output = Result<(), std::io::Error>> + use<> {
        let log = log.clone();
        async move {
            log.lock().unwrap().push(id);
            if fails {
                Err(std::io::Error::other("stuck"))
            } else {
                Ok(())
            }
        }
    }

    #[tokio::test]
    async fn every_step_runs_last_first() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::new();
        for (id, fails) in [(1, false), (2, true), (3, false)] {
            let log = log.clone();
            undo.push("step", move || noted(&log, id, fails));
        }
        let failures = undo.run().await;
        assert_eq!(*log.lock().unwrap(), [3, 2, 1]);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].to_string(), "step: stuck");
    }

    #[tokio::test]
    async fn a_commit_takes_nothing_back() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut undo = Undo::new();
        let kept = log.clone();
        undo.push("step", move || noted(&kept, 1, false));
        undo.commit();
        assert!(log.lock().unwrap().is_empty());
    }
}
