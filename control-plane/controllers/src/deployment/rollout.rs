//! How many pods each ReplicaSet is to have next. Pure.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

/// A ReplicaSet's next size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scale {
    pub uid: String,
    pub replicas: i32,
}

/// How far a rolling update may go above and below the wanted number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub surge: i32,
    pub unavailable: i32,
}

pub(super) fn desired(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or(1)
}

/// The size that a ReplicaSet is asked to have.
pub(super) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|s| s.available_replicas)
        .unwrap_or_default()
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// maxSurge rounds up, maxUnavailable down; both zero would never move, so one may go.
pub(super) fn limits(deployment: &Deployment) -> Limits {
    if is_recreate(deployment) {
        return Limits {
            surge: 0,
            unavailable: 0,
        };
    }
    let rolling = deployment
        .spec
        .as_ref()
        .and_then(|s| s.strategy.as_ref())
        .and_then(|s| s.rolling_update.clone())
        .unwrap_or_default();
    let desired = desired(deployment);
    let surge = resolve(rolling.max_surge.as_ref(), desired, true);
    let unavailable = resolve(rolling.max_unavailable.as_ref(), desired, false);
    Limits {
        surge,
        unavailable: if surge == 0 && unavailable == 0 {
            1
        } else {
            unavailable.min(desired)
        },
    }
}

fn resolve(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            percent(text.trim_end_matches('%').parse().unwrap_or(25), of, up)
        }
        None => percent(25, of, up),
    }
}

fn percent(percent: i32, of: i32, up: bool) -> i32 {
    let product = i64::from(percent) * i64::from(of);
    let rounded = if up {
        (product + 99) / 100
    } else {
        product / 100
    };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// The sizes to be set now. One call is one step; the ReplicaSets' status brings the next.
pub(super) fn compute(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    current: Option<&str>,
) -> Vec<Scale> {
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|s| s.paused)
        .unwrap_or(false);
    if paused || is_resized(deployment, sets) {
        return proportional(deployment, sets, current);
    }
    let Some(new) = sets.iter().find(|s| s.metadata.uid.as_deref() == current) else {
        return Vec::new();
    };
    let old: Vec<&ReplicaSet> = sets
        .iter()
        .filter(|s| s.metadata.uid.as_deref() != current)
        .collect();
    if is_recreate(deployment) {
        return recreate(deployment, new, &old);
    }
    let limits = limits(deployment);
    let mut scales = vec![scale_new(deployment, new, sets, limits)];
    scales.extend(scale_old(deployment, new, &old, limits));
    scales
}

fn scale(set: &ReplicaSet, replicas: i32) -> Scale {
    Scale {
        uid: set.metadata.uid.clone().unwrap_or_default(),
        replicas: replicas.max(0),
    }
}

fn recreate(deployment: &Deployment, new: &ReplicaSet, old: &[&ReplicaSet]) -> Vec<Scale> {
    let mut scales: Vec<Scale> = old
        .iter()
        .filter(|s| wanted(s) > 0)
        .map(|s| scale(s, 0))
        .collect();
    let all_gone = old
        .iter()
        .all(|s| wanted(s) == 0 && s.status.as_ref().is_none_or(|st| st.replicas == 0));
    if all_gone {
        scales.push(scale(new, desired(deployment)));
    }
    scales
}

fn scale_new(
    deployment: &Deployment,
    new: &ReplicaSet,
    sets: &[ReplicaSet],
    limits: Limits,
) -> Scale {
    let desired = desired(deployment);
    let held = wanted(new);
    if held >= desired {
        return scale(new, desired);
    }
    let total: i32 = sets.iter().map(wanted).sum();
    let room = (desired + limits.surge - total).max(0);
    scale(new, held + room.min(desired - held))
}

/// First the pods of old sets that are not available anyway, then as many available
/// ones as the limit allows, oldest set first.
fn scale_old(
    deployment: &Deployment,
    new: &ReplicaSet,
    old: &[&ReplicaSet],
    limits: Limits,
) -> Vec<Scale> {
    let least = desired(deployment) - limits.unavailable;
    let mut sizes: Vec<(&ReplicaSet, i32)> = old.iter().map(|s| (*s, wanted(s))).collect();
    let total: i32 = sizes.iter().map(|(_, n)| n).sum::<i32>() + wanted(new);
    let new_unavailable = (wanted(new) - available(new)).max(0);
    let mut unhealthy_room = (total - least - new_unavailable).max(0);
    for (set, size) in &mut sizes {
        let cut = (*size - available(set)).max(0).min(unhealthy_room);
        *size -= cut;
        unhealthy_room -= cut;
    }
    let all_available: i32 = old.iter().map(|s| available(s)).sum::<i32>() + available(new);
    let mut room = (all_available - least).max(0);
    for (_, size) in &mut sizes {
        let cut = (*size).min(room);
        *size -= cut;
        room -= cut;
    }
    sizes
        .into_iter()
        .filter(|(set, size)| wanted(set) != *size)
        .map(|(set, size)| scale(set, size))
        .collect()
}

/// Whether `spec.replicas` changed since the sets were last scaled.
fn is_resized(deployment: &Deployment, sets: &[ReplicaSet]) -> bool {
    sets.iter().filter(|s| wanted(s) > 0).any(|s| {
        let held = s
            .annotations()
            .get(super::DESIRED)
            .and_then(|text| text.parse::<i32>().ok());
        held.is_some_and(|held| held != desired(deployment))
    })
}

/// A resize amid a rollout is shared out by size; what rounding leaves goes to the
/// largest set, the current one among equals.
fn proportional(deployment: &Deployment, sets: &[ReplicaSet], current: Option<&str>) -> Vec<Scale> {
    let mut active: Vec<&ReplicaSet> = sets.iter().filter(|s| wanted(s) > 0).collect();
    if active.is_empty() {
        active.extend(sets.iter().find(|s| s.metadata.uid.as_deref() == current));
    }
    let desired = desired(deployment);
    if let [only] = active[..] {
        return vec![scale(only, desired)];
    }
    let target = if desired > 0 {
        desired + limits(deployment).surge
    } else {
        0
    };
    let total: i32 = active.iter().map(|s| wanted(s)).sum();
    if total == 0 {
        return Vec::new();
    }
    let mut scales: Vec<Scale> = active
        .iter()
        .map(|s| {
            scale(
                s,
                i32::try_from(i64::from(wanted(s)) * i64::from(target) / i64::from(total))
                    .unwrap_or(i32::MAX),
            )
        })
        .collect();
    let left = target - scales.iter().map(|s| s.replicas).sum::<i32>();
    let largest = active
        .iter()
        .enumerate()
        .max_by_key(|(_, s)| (wanted(s), s.metadata.uid.as_deref() == current))
        .map(|(i, _)| i);
    if let Some(index) = largest {
        scales[index].replicas += left;
    }
    scales
}

/// Whether every pod is of the current template and available.
pub(super) fn is_complete(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    current: Option<&str>,
) -> bool {
    let desired = desired(deployment);
    sets.iter().all(|set| {
        let status = set.status.clone().unwrap_or_default();
        if set.metadata.uid.as_deref() == current {
            wanted(set) == desired
                && status.replicas == desired
                && available(set) == desired
                && status.observed_generation >= set.metadata.generation
        } else {
            wanted(set) == 0 && status.replicas == 0
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(replicas: i32, strategy: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": replicas, "selector": {}, "strategy": strategy, "template": {}},
        }))
        .unwrap()
    }

    fn set(uid: &str, wanted: i32, available: i32, desired: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid, "annotations": {super::super::DESIRED: desired.to_string()}},
            "spec": {"replicas": wanted, "selector": {}},
            "status": {"replicas": wanted, "availableReplicas": available},
        }))
        .unwrap()
    }

    /// Steps a rollout as if every pod became available at once, and returns the sizes.
    fn roll(deployment: &Deployment, mut sets: Vec<ReplicaSet>) -> Vec<(i32, i32)> {
        let mut sizes = Vec::new();
        for _ in 0..20 {
            let scales = compute(deployment, &sets, Some("new"));
            let mut changed = false;
            for s in &mut sets {
                if let Some(next) = scales
                    .iter()
                    .find(|x| Some(&x.uid) == s.metadata.uid.as_ref())
                {
                    changed |= wanted(s) != next.replicas;
                    *s = set(&next.uid, next.replicas, next.replicas, desired(deployment));
                }
            }
            if !changed {
                break;
            }
            sizes.push((wanted(&sets[0]), wanted(&sets[1])));
        }
        sizes
    }

    #[test]
    fn a_rolling_update_stays_within_its_limits() {
        let deployment = deployment(
            4,
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
        );
        let sizes = roll(&deployment, vec![set("old", 4, 4, 4), set("new", 0, 0, 4)]);
        assert_eq!(sizes.last(), Some(&(0, 4)));
        assert!(
            sizes
                .iter()
                .all(|(old, new)| old + new <= 5 && old + new >= 3),
            "{sizes:?}"
        );
    }

    #[test]
    fn no_surge_and_no_unavailable_still_moves() {
        let deployment = deployment(
            2,
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
        );
        assert_eq!(
            limits(&deployment),
            Limits {
                surge: 0,
                unavailable: 1
            }
        );
        assert_eq!(
            roll(&deployment, vec![set("old", 2, 2, 2), set("new", 0, 0, 2)]).last(),
            Some(&(0, 2))
        );
    }

    #[test]
    fn recreate_waits_until_the_old_pods_are_gone() {
        let deployment = deployment(2, json!({"type": "Recreate"}));
        let scales = compute(
            &deployment,
            &[set("old", 2, 2, 2), set("new", 0, 0, 2)],
            Some("new"),
        );
        assert_eq!(
            scales,
            [Scale {
                uid: "old".into(),
                replicas: 0
            }]
        );
    }

    #[test]
    fn a_broken_new_template_does_not_take_the_old_pods() {
        let deployment = deployment(
            4,
            json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}),
        );
        let scales = compute(
            &deployment,
            &[set("old", 3, 3, 4), set("new", 2, 0, 4)],
            Some("new"),
        );
        assert_eq!(
            scales,
            [Scale {
                uid: "new".into(),
                replicas: 2
            }]
        );
    }

    #[test]
    fn a_resize_amid_a_rollout_is_shared_out() {
        let deployment = deployment(
            10,
            json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}),
        );
        let scales = compute(
            &deployment,
            &[set("old", 3, 3, 5), set("new", 2, 2, 5)],
            Some("new"),
        );
        assert_eq!(
            scales.iter().map(|s| s.replicas).collect::<Vec<_>>(),
            [6, 4]
        );
    }
}
