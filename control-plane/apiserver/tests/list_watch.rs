//! Pages, versions and event streams, as informers use them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[allow(dead_code, reason = "each test crate uses its own part")]
mod support;

use serde_json::Value;
use support::{Cluster, has_kubectl};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn get(cluster: &Cluster, query: &str) -> Value {
    let text = cluster.ok(&["get", "--raw", &format!("{MAPS}{query}")]);
    serde_json::from_str(&text).unwrap()
}

/// The events of a watch of one second: type and name, or type and version for bookmarks.
fn watch(cluster: &Cluster, query: &str) -> Vec<(String, Value)> {
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1&{query}");
    let text = cluster.ok(&["get", "--raw", &path]);
    text.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            (
                event["type"].as_str().unwrap().to_owned(),
                event["object"].clone(),
            )
        })
        .collect()
}

fn shown(events: &[(String, Value)]) -> Vec<String> {
    let name = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .unwrap_or("-")
            .to_owned()
    };
    events
        .iter()
        .map(|(kind, object)| format!("{kind} {}", name(object)))
        .collect()
}

#[test]
fn pages_continue_at_the_revision_of_the_first() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    for name in ["a", "b", "c"] {
        cluster.ok(&["create", "cm", name]);
    }
    let first = get(&cluster, "?limit=2");
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    cluster.ok(&["create", "cm", "d"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = get(&cluster, &format!("?limit=2&continue={token}"));
    assert_eq!(rest["items"][0]["metadata"]["name"], "c");
    assert_eq!(
        rest["items"].as_array().unwrap().len(),
        1,
        "the page is of the old revision"
    );
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
    let bad = cluster.kubectl(&["get", "--raw", &format!("{MAPS}?continue=x")]);
    assert!(bad.err.contains("continue key is not valid"), "{}", bad.err);
    let ahead = cluster.kubectl(&["get", "--raw", &format!("{MAPS}?resourceVersion=99999")]);
    assert!(
        ahead.err.contains("Too large resource version: 99999"),
        "{}",
        ahead.err
    );
}

#[test]
fn a_selector_turns_changes_into_additions_and_deletions() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    let start = get(&cluster, "")["metadata"]["resourceVersion"].clone();
    let start = start.as_str().unwrap();
    cluster.ok(&["create", "cm", "a"]);
    cluster.ok(&["label", "cm", "a", "k=v"]);
    cluster.ok(&["annotate", "cm", "a", "x=y"]);
    cluster.ok(&["label", "cm", "a", "k-"]);
    cluster.ok(&["delete", "cm", "a"]);
    let all = watch(&cluster, &format!("resourceVersion={start}"));
    assert_eq!(
        shown(&all),
        [
            "ADDED a",
            "MODIFIED a",
            "MODIFIED a",
            "MODIFIED a",
            "DELETED a"
        ]
    );
    let selected = watch(
        &cluster,
        &format!("resourceVersion={start}&labelSelector=k=v"),
    );
    assert_eq!(shown(&selected), ["ADDED a", "MODIFIED a", "DELETED a"]);
    let versions: Vec<u64> = all
        .iter()
        .map(|(_, object)| {
            object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert!(versions.is_sorted(), "{versions:?}");
    assert!(
        watch(
            &cluster,
            &format!("resourceVersion={start}&fieldSelector=metadata.name=b")
        )
        .is_empty()
    );
}

#[test]
fn a_watch_list_ends_its_initial_events_with_a_bookmark() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    cluster.ok(&["create", "cm", "a"]);
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let events = watch(&cluster, query);
    assert_eq!(shown(&events)[..2], ["ADDED a", "BOOKMARK -"]);
    let bookmark = &events[1].1["metadata"];
    assert_eq!(bookmark["annotations"]["k8s.io/initial-events-end"], "true");
    let old = watch(&cluster, "");
    assert_eq!(
        shown(&old),
        ["ADDED a"],
        "without a version the present state comes first"
    );
    let missing = cluster.kubectl(&[
        "get",
        "--raw",
        &format!("{MAPS}?watch=1&sendInitialEvents=true"),
    ]);
    assert!(
        missing.err.contains("resourceVersionMatch"),
        "{}",
        missing.err
    );
}

#[test]
fn history_before_a_restart_is_gone() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start();
    let start = get(&cluster, "")["metadata"]["resourceVersion"].clone();
    cluster.ok(&["create", "cm", "a"]);
    let cluster = Cluster::start_in(cluster.stop());
    let events = watch(
        &cluster,
        &format!("resourceVersion={}", start.as_str().unwrap()),
    );
    assert_eq!(events[0].0, "ERROR");
    assert_eq!(events[0].1["code"], 410);
    assert_eq!(events[0].1["reason"], "Expired");
}
