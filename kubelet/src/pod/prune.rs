//! Which dead containers and sandboxes of a living pod are kept. Pure.
//!
//! Of each container the newest dead instance stays (for `logs --previous` and lastState);
//! of sandboxes the newest, and those that still hold a container that stays.

use super::runtime::{ContainerState, PodRuntime};

/// Ids to remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prune {
    /// Containers, with the path of their log.
    pub containers: Vec<(String, String)>,
    /// Sandboxes.
    pub sandboxes: Vec<String>,
}

/// Chooses what is no longer needed.
#[must_use]
pub fn choose(runtime: &PodRuntime) -> Prune {
    let mut prune = Prune::default();
    let mut seen: Vec<(&str, bool)> = Vec::new();
    for record in &runtime.containers {
        let newest = !seen.iter().any(|(name, _)| *name == record.name);
        let dead = matches!(
            record.state,
            ContainerState::Exited | ContainerState::Created
        );
        let dead_kept = seen
            .iter()
            .any(|(name, dead)| *name == record.name && *dead);
        if dead && !newest && dead_kept {
            let entry = (record.id.clone(), record.log_path.clone());
            prune.containers.push(entry);
            continue;
        }
        // The newest instance, dead or alive, does not use up the one dead that is kept.
        seen.push((&record.name, dead && !newest));
    }
    for sandbox in runtime.sandboxes.iter().skip(1).filter(|s| !s.ready) {
        let held = runtime.containers.iter().any(|c| {
            c.sandbox_id == sandbox.id && !prune.containers.iter().any(|(id, _)| *id == c.id)
        });
        if !held {
            prune.sandboxes.push(sandbox.id.clone());
        }
    }
    prune
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::runtime::{ContainerRecord, Sandbox};

    fn record(id: &str, name: &str, state: ContainerState, sandbox: &str) -> ContainerRecord {
        ContainerRecord {
            id: id.into(),
            name: name.into(),
            state,
            sandbox_id: sandbox.into(),
            ..ContainerRecord::default()
        }
    }

    #[test]
    fn the_newest_and_one_dead_instance_stay() {
        use ContainerState::{Exited, Running};
        let sandbox = |id: &str, ready| Sandbox {
            id: id.into(),
            ready,
            ..Sandbox::default()
        };
        let runtime = PodRuntime {
            sandboxes: vec![
                sandbox("s2", true),
                sandbox("s1", false),
                sandbox("s0", false),
            ],
            containers: vec![
                record("a3", "a", Running, "s2"),
                record("b1", "b", Exited, "s1"),
                record("a2", "a", Exited, "s1"),
                record("a1", "a", Exited, "s0"),
                record("a0", "a", Exited, "s0"),
            ],
        };
        let prune = choose(&runtime);
        let ids: Vec<_> = prune.containers.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["a1", "a0"]);
        assert_eq!(prune.sandboxes, ["s0"]);
    }
}
