//! What the probes last said of each container instance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Which question a probe answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Should it be restarted?
    Liveness,
    /// May it get traffic?
    Readiness,
    /// Has it finished starting?
    Startup,
}

impl Kind {
    /// The word in events: `Liveness probe failed: …`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
            Kind::Startup => "Startup",
        }
    }
}

/// A cheap handle on the results; written by probe workers only.
#[derive(Debug, Clone, Default)]
pub struct Results {
    inner: Arc<Mutex<HashMap<(String, Kind), bool>>>,
}

/// The results at one moment, by container id.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    results: HashMap<(String, Kind), bool>,
}

impl Results {
    /// Keeps a result; true when it differs from the one before.
    pub fn set(&self, container: &str, kind: Kind, passed: bool) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.insert((container.to_owned(), kind), passed) != Some(passed)
    }

    /// Forgets a container instance.
    pub fn remove(&self, container: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.retain(|(id, _), _| id != container);
    }

    /// Whether a probe of this kind last passed; `None` before its first verdict.
    #[must_use]
    pub fn get(&self, container: &str, kind: Kind) -> Option<bool> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.get(&(container.to_owned(), kind)).copied()
    }

    /// All results now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            results: inner.clone(),
        }
    }
}

impl Snapshot {
    /// Whether a probe of this kind last passed; `None` before its first verdict.
    #[must_use]
    pub fn get(&self, container: &str, kind: Kind) -> Option<bool> {
        self.results.get(&(container.to_owned(), kind)).copied()
    }

    /// The verdict is in, and it is no.
    #[must_use]
    pub fn failed(&self, container: &str, kind: Kind) -> bool {
        self.get(container, kind) == Some(false)
    }
}

#[cfg(test)]
impl Snapshot {
    pub(crate) fn of(results: &[(&str, Kind, bool)]) -> Snapshot {
        Snapshot {
            results: results
                .iter()
                .map(|(id, kind, passed)| (((*id).to_owned(), *kind), *passed))
                .collect(),
        }
    }
}
