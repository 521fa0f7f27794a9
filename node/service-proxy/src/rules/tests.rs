use super::*;
use crate::model::Protocol;

fn port(address: &str, endpoints: &[&str], affinity_seconds: Option<u32>) -> ServicePort {
    ServicePort {
        address: address.parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 80,
        name: "default/web:http".into(),
        affinity_seconds,
        endpoints: endpoints
            .iter()
            .map(|ip| (ip.parse().unwrap(), 8080))
            .collect(),
    }
}

#[test]
fn the_first_step_writes_the_whole_table_and_the_same_again_nothing() {
    let desired = [port("10.96.0.5", &["10.88.0.2", "10.88.0.3"], None)];
    let (text, applied) = Applied::default().step("t", &desired).unwrap();
    assert!(text.starts_with("table inet t\ndelete table inet t\n"));
    assert!(
        text.contains("numgen random mod 2 map { 0 : 10.88.0.2 . 8080, 1 : 10.88.0.3 . 8080 }")
    );
    assert!(applied.step("t", &desired).is_none());
}

#[test]
fn a_change_touches_only_its_service() {
    let other = port("10.96.0.6", &["10.88.0.9"], None);
    let (_, applied) = Applied::default()
        .step(
            "t",
            &[port("10.96.0.5", &["10.88.0.2"], None), other.clone()],
        )
        .unwrap();
    let (text, _) = applied
        .step("t", &[port("10.96.0.5", &[], None), other])
        .unwrap();
    assert!(!text.contains("10.96.0.6") && !text.contains("delete table"));
    assert!(text.contains("delete element inet t services4 { 10.96.0.5 . tcp . 80 }"));
    assert!(text.contains("add element inet t refused4 { 10.96.0.5 . tcp . 80 comment"));
}

#[test]
fn an_endpoint_shared_by_two_services_is_counted_once() {
    let both = [
        port("10.96.0.5", &["10.88.0.2"], None),
        port("10.96.0.6", &["10.88.0.2"], None),
    ];
    let (text, applied) = Applied::default().step("t", &both).unwrap();
    assert_eq!(text.matches("add element inet t self4").count(), 1);
    let (text, _) = applied.step("t", &both[..1]).unwrap();
    assert!(!text.contains("self4"));
}

/// What nft itself says to every kind of step, in a network namespace of its own.
#[test]
fn root_nft_accepts_every_step() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let steps: [&[ServicePort]; 5] = [
        &[],
        &[
            port("10.96.0.5", &["10.88.0.2", "10.88.0.3"], None),
            port("fd00::5", &["fd01::2"], None),
        ],
        &[
            port("10.96.0.5", &["10.88.0.2"], Some(60)),
            port("10.96.0.6", &["10.88.0.2"], None),
            port("fd00::5", &["fd01::2"], Some(60)),
        ],
        &[port("10.96.0.5", &[], None)],
        &[],
    ];
    let host = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let netns = std::process::Command::new("unshare")
        .args(["--net", "sleep", "60"])
        .spawn();
    let mut holder = netns.unwrap();
    let path = format!("/proc/{}/ns/net", holder.id());
    let inode =
        |file: &std::fs::File| std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
    let own = loop {
        let own = std::fs::File::open(&path).unwrap();
        if inode(&own) != inode(&host) {
            break own;
        }
        std::thread::yield_now();
    };
    let outcome = berth_netlink::netns::run_in(&own, || {
        let mut applied = Applied::default();
        for desired in steps {
            let Some((text, next)) = applied.step("berth_test", desired) else {
                continue;
            };
            berth_netlink::nft::apply("test", &text).map_err(|e| format!("{e}\n{text}"))?;
            applied = next;
        }
        Ok::<(), String>(())
    });
    holder.kill().unwrap();
    holder.wait().unwrap();
    outcome.unwrap().unwrap();
}
