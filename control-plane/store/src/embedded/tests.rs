use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;

use super::*;
use crate::{
    store::{Compare, Op},
    watch::{ChangeKind, WatchItem},
};

fn put(key: &str, value: &str) -> Op {
    Op::Put {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ttl: None,
    }
}

fn txn(ops: Vec<Op>) -> Txn {
    Txn {
        compare: Vec::new(),
        ops,
    }
}

fn all(prefix: &str) -> Range {
    Range {
        prefix: prefix.to_owned(),
        ..Range::default()
    }
}

#[tokio::test]
async fn compare_and_swap_lets_one_writer_win() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let create = |value: &str| Txn {
        compare: vec![Compare {
            key: "/a".into(),
            modified: 0,
        }],
        ops: vec![put("/a", value)],
    };
    let (one, two) = tokio::join!(store.txn(create("1")), store.txn(create("2")));
    assert!(one.is_ok() != two.is_ok());
    let Err(TxnError::Conflict { current, .. }) = one.and(two) else {
        panic!("one of them must lose by conflict");
    };
    assert!(current.is_some());
}

#[tokio::test]
async fn a_page_and_its_continuation_read_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let ops = (0..5).map(|n| put(&format!("/p/{n}"), "old")).collect();
    store.txn(txn(ops)).await.unwrap();
    let first = store
        .range(Range {
            limit: 2,
            ..all("/p/")
        })
        .await
        .unwrap();
    assert_eq!((first.entries.len(), first.remaining), (2, 3));
    store
        .txn(txn(vec![put("/p/3", "new"), put("/p/9", "new")]))
        .await
        .unwrap();
    let rest = store
        .range(Range {
            after: Some(first.entries[1].key.to_string()),
            at: Some(first.revision),
            ..all("/p/")
        })
        .await
        .unwrap();
    let values: Vec<_> = rest.entries.iter().map(|entry| &entry.value[..]).collect();
    assert_eq!(values, [b"old", b"old", b"old"]);
    store.compact(store.revision().await.unwrap()).await;
    let gone = store
        .range(Range {
            at: Some(first.revision),
            ..all("/p/")
        })
        .await;
    assert!(matches!(gone, Err(ReadError::Compacted { .. })));
}

#[tokio::test]
async fn a_watch_sees_history_then_live_changes_and_only_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let start = store.revision().await.unwrap();
    store.txn(txn(vec![put("/w/a", "1")])).await.unwrap();
    store.txn(txn(vec![put("/x/a", "1")])).await.unwrap();
    let mut watch = store.watch("/w/".into(), start).await.unwrap();
    store.txn(txn(vec![put("/w/a", "2")])).await.unwrap();
    store
        .txn(txn(vec![Op::Delete { key: "/w/a".into() }]))
        .await
        .unwrap();
    watch.request_progress();
    let mut kinds = Vec::new();
    let progress = loop {
        match watch.next().await.unwrap() {
            WatchItem::Change(change) => kinds.push(change.kind),
            WatchItem::Progress(revision) => break revision,
        }
    };
    use ChangeKind::{Created, Deleted, Updated};
    assert_eq!(kinds, [Created, Updated, Deleted]);
    assert_eq!(progress, store.revision().await.unwrap());
    store.compact(progress).await;
    let old = store.watch("/w/".into(), start).await;
    assert!(matches!(old, Err(WatchError::Compacted { .. })));
}

#[tokio::test]
async fn a_key_with_a_time_to_live_goes_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    let op = Op::Put {
        key: "/e/1".into(),
        value: Bytes::from_static(b"x"),
        ttl: Some(Duration::from_secs(1)),
    };
    let start = store.txn(txn(vec![op])).await.unwrap().revision;
    let mut watch = store.watch("/e/".into(), start).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    store.txn(txn(vec![put("/other", "")])).await.unwrap();
    let Some(WatchItem::Change(change)) = watch.next().await else {
        panic!("the deletion must be seen");
    };
    assert_eq!(change.kind, ChangeKind::Deleted);
}

const CHILD: &str = "BERTH_STORE_TEST_CHILD";

/// The body of the child: 16 writers, each prints a key once its write was acknowledged.
fn write_until_killed(dir: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let store = Embedded::open(Path::new(dir)).unwrap();
    runtime.block_on(futures::future::join_all((0..16).map(async |writer| {
        for n in 0.. {
            let key = format!("/k/{writer}/{n}");
            store.txn(txn(vec![put(&key, &key)])).await.unwrap();
            let line = format!("acked {key}\n");
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        }
    })));
}

#[test]
fn every_acknowledged_write_survives_sigkill() {
    if let Ok(dir) = std::env::var(CHILD) {
        write_until_killed(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["every_acknowledged_write_survives_sigkill", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = Vec::new();
        for line in lines {
            let line = line.unwrap();
            // A line cut short by the kill lacks its key's tail: only whole ones count, and
            // the last one may be cut, so it is left out below.
            if let Some(at) = line.find("acked ") {
                acknowledged.push(line[at + 6..].to_owned());
            }
            if acknowledged.len() == 2000 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= 2000 * round);
        acknowledged.pop();
        let store = Embedded::open(dir.path()).unwrap();
        let memory = read(&store.shared);
        for key in &acknowledged {
            let entry = memory.newest(key);
            assert_eq!(entry.map(|entry| entry.value), Some(key.clone().into()));
        }
    }
}
