use super::*;

fn round_trip(text: &str) -> Request {
    let request: Request = serde_json::from_str(text).unwrap();
    let again = serde_json::to_string(&request).unwrap();
    serde_json::from_str(&again).unwrap()
}

/// The wire form is a promise to the next release's daemon: these texts may gain fields, never change.
#[test]
fn the_wire_form_of_version_1_is_read() {
    assert!(matches!(
        round_trip(r#"{"Hello":{"version":1}}"#),
        Request::Hello { version: 1 }
    ));
    assert!(matches!(round_trip(r#""State""#), Request::State));
    assert!(matches!(round_trip(r#""Shutdown""#), Request::Shutdown));
    assert!(matches!(
        round_trip(r#"{"Signal":{"container":"c","signal":9}}"#),
        Request::Signal {
            signal: 9,
            all: false,
            ..
        }
    ));
    assert!(matches!(
        round_trip(r#"{"Resize":{"container":"c","rows":1,"cols":2}}"#),
        Request::Resize {
            exec_id: None,
            rows: 1,
            cols: 2,
            ..
        }
    ));
    let Request::Launch(launch) =
        round_trip(r#"{"Launch":{"id":"c","bundle":"/b","rootfs":{"Path":"/r"}}}"#)
    else {
        panic!("not a launch");
    };
    assert_eq!(launch.launcher, LauncherKind::Native);
    assert_eq!(launch.cgroup, CgroupMode::Managed { degraded_ok: false });
    assert!(launch.log_path.is_none() && !launch.tty && !launch.stdin && !launch.stdin_once);
}

#[test]
fn what_is_unknown_is_refused() {
    for text in [
        "",
        "{}",
        "null",
        r#"{"Bye":{}}"#,
        r#"{"Hello":{}}"#,
        r#"{"Hello":{"version":-1}}"#,
    ] {
        assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
    }
}

/// A daemon of the former release sent and a monitor of it answers without a record.
#[test]
fn a_record_may_be_absent_and_passes_unchanged() {
    let former: Reply =
        serde_json::from_str(r#"{"Launched":{"pid":1,"started_at":2,"not_enforced":[]}}"#).unwrap();
    assert!(matches!(
        former,
        Reply::Launched(Launched { record: None, .. })
    ));
    assert!(!serde_json::to_string(&former).unwrap().contains("record"));
    let text = r#"{"ExecStarted":{"exec_id":1,"pid":2,"record":{"b": 1, "a":[ ]}}}"#;
    let reply: Reply = serde_json::from_slice(text.as_bytes()).unwrap();
    let Reply::ExecStarted {
        record: Some(record),
        ..
    } = &reply
    else {
        panic!("{reply:?}");
    };
    assert_eq!(record.get(), r#"{"b": 1, "a":[ ]}"#);
    assert_eq!(serde_json::to_string(&reply).unwrap(), text);
}
