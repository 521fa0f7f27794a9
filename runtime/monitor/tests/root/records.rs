//! The sandbox records that a monitor hands over.

use berth_monitor::client::CallError;
use berth_monitor::protocol::*;
use serde_json::Value;

use crate::pod::{Pod, skipped};

fn parsed(record: Option<Box<serde_json::value::RawValue>>) -> Value {
    serde_json::from_str(record.expect("a record").get()).unwrap()
}

#[test]
fn root_a_start_and_an_exec_come_with_what_the_kernel_gave() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let launched = pod.launch(&pod.container("c", "sleep 1000"));
    let start = parsed(launched.record);
    assert_eq!(start["kind"], "start");
    assert_eq!(start["container"], "c");
    assert_eq!(start["read_at"], "exec-stop", "{start:#}");
    assert_ne!(start["verdict"], "mismatch");
    assert_eq!(start["mismatches"], Value::Null, "{start:#}");
    let fields = &start["fields"];
    assert_eq!(fields["no_new_privs"]["applied"], true);
    // A monitor hides nothing: the daemon does, with the node's key.
    let environment = &fields["environment"];
    assert_eq!(environment["requested"], environment["applied"]);
    assert!(environment["applied"]["environment"].is_string());

    let executed = parsed(pod.exec_record("c", "sleep 1000"));
    assert_eq!(executed["kind"], "exec");
    assert_eq!(executed["read_at"], "exec-stop", "{executed:#}");
    assert_eq!(executed["mismatches"], Value::Null, "{executed:#}");
    pod.signal("c", 9, true);
    pod.exit_of("c");
    pod.shutdown();
}

#[test]
fn root_what_differs_does_not_start_and_its_record_says_where() {
    if skipped() {
        return;
    }
    if std::env::var_os("BERTH_MONITOR").is_some() {
        println!("skipped: that monitor was built without faults");
        return;
    }
    let pod = Pod::with_fault("another umask");
    let container = pod.container("c", "echo ran");
    let answer = pod.connect().call(&Request::Launch(container), &[]);
    let Err(CallError::Refused {
        code,
        message,
        record,
    }) = answer
    else {
        panic!("{answer:?}")
    };
    assert_eq!(code, ErrorKind::Launch);
    assert!(
        message.contains("verify: compare the sandbox") && message.contains("umask: "),
        "{message}"
    );
    let record = parsed(record);
    assert_eq!(record["verdict"], "mismatch");
    assert_eq!(record["mismatches"][0]["field"], "umask");
    assert!(pod.state().containers.is_empty(), "nothing is left");
    assert!(!pod.cgroup_path().join("c").exists(), "its group is gone");
    pod.shutdown();
}
