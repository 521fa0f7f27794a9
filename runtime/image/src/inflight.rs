//! One worker per layer: whoever comes second waits, and finds the work done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OwnedMutexGuard;

use crate::digest::Digest;

type Gate = tokio::sync::Mutex<()>;

/// Gates by chain id; a gate lives as long as somebody holds or awaits it.
#[derive(Default)]
pub(crate) struct InFlight {
    gates: Mutex<HashMap<Digest, Weak<Gate>>>,
}

impl InFlight {
    /// Waits until nobody else works on `chain`. If the other was cancelled, the work is ours.
    pub async fn enter(&self, chain: &Digest) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.retain(|_, gate| gate.strong_count() > 0);
            match gates.get(chain).and_then(Weak::upgrade) {
                Some(gate) => gate,
                None => {
                    let gate = Arc::new(Gate::new(()));
                    gates.insert(chain.clone(), Arc::downgrade(&gate));
                    gate
                }
            }
        };
        gate.lock_owned().await
    }
}
