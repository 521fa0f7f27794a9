use super::*;
use crate::testing::{pod, pod_of};

const NOW: i64 = 1_000_000;

fn sandbox(id: &str, attempt: u32, ready: bool) -> Sandbox {
    Sandbox {
        id: id.into(),
        attempt,
        ready,
        ips: vec!["10.88.0.2".into()],
        ..Sandbox::default()
    }
}

fn record(name: &str, state: ContainerState, exit_code: i32) -> ContainerRecord {
    ContainerRecord {
        id: format!("id-{name}"),
        name: name.into(),
        sandbox_id: "s0".into(),
        state,
        exit_code,
        finished_at: NOW * 1_000_000,
        ..ContainerRecord::default()
    }
}

fn running(name: &str) -> ContainerRecord {
    record(name, ContainerState::Running, 0)
}

fn exited(name: &str, code: i32) -> ContainerRecord {
    record(name, ContainerState::Exited, code)
}

fn decide(pod: &Pod, containers: Vec<ContainerRecord>) -> PodActions {
    decide_with(pod, containers, &Snapshot::default())
}

fn decide_with(pod: &Pod, containers: Vec<ContainerRecord>, probes: &Snapshot) -> PodActions {
    let runtime = PodRuntime {
        sandboxes: vec![sandbox("s0", 0, true)],
        containers,
    };
    compute_pod_actions(
        pod,
        World {
            runtime: &runtime,
            probes,
            backoff: &Backoff::new(Duration::from_secs(300)),
            now: NOW,
        },
    )
}

fn decide_sandboxes(
    pod: &Pod,
    sandboxes: Vec<Sandbox>,
    containers: Vec<ContainerRecord>,
) -> PodActions {
    let runtime = PodRuntime {
        sandboxes,
        containers,
    };
    compute_pod_actions(
        pod,
        World {
            runtime: &runtime,
            probes: &Snapshot::default(),
            backoff: &Backoff::new(Duration::from_secs(300)),
            now: NOW,
        },
    )
}

fn started(actions: &PodActions) -> Vec<(&str, u32)> {
    actions
        .start
        .iter()
        .map(|s| (s.name.as_str(), s.attempt))
        .collect()
}

#[test]
fn a_new_pod_gets_a_sandbox_and_nothing_else() {
    let actions = decide_sandboxes(&pod_of(&["a"], "Always"), vec![], vec![]);
    let expected = PodActions {
        new_sandbox: Some(0),
        ..PodActions::default()
    };
    assert_eq!(actions, expected);
}

#[test]
fn sandboxes_that_cannot_be_used_are_replaced() {
    let pod = pod_of(&["a"], "Always");
    let lost = decide_sandboxes(&pod, vec![sandbox("s0", 3, false)], vec![exited("a", 255)]);
    assert_eq!((lost.stop_all, lost.new_sandbox), (true, Some(4)));

    let two = vec![sandbox("s1", 1, true), sandbox("s0", 0, true)];
    let twice = decide_sandboxes(&pod, two, vec![]);
    assert_eq!((twice.stop_all, twice.new_sandbox), (true, Some(2)));

    let mut no_address = sandbox("s0", 0, true);
    no_address.ips.clear();
    let unconnected = decide_sandboxes(&pod, vec![no_address.clone()], vec![]);
    assert_eq!(unconnected.new_sandbox, Some(1));

    let hosted = self::pod("{hostNetwork: true, containers: [{name: a, image: i}]}");
    let fine = decide_sandboxes(&hosted, vec![no_address], vec![]);
    assert_eq!(started(&fine), [("a", 0)]);
}

#[test]
fn a_finished_pod_gets_no_new_sandbox() {
    let gone = || vec![sandbox("s0", 0, false)];
    for (policy, code, again) in [
        ("Never", 0, false),
        ("Never", 1, false),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Always", 0, true),
    ] {
        let actions = decide_sandboxes(&pod_of(&["a"], policy), gone(), vec![exited("a", code)]);
        assert_eq!(actions.new_sandbox.is_some(), again, "{policy} {code}");
    }
}

#[test]
fn restart_policy_decides_after_an_exit() {
    for (policy, code, again) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 137, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let actions = decide(&pod_of(&["a"], policy), vec![exited("a", code)]);
        let expected: &[(&str, u32)] = if again { &[("a", 1)] } else { &[] };
        assert_eq!(started(&actions), expected, "{policy} {code}");
    }
}

#[test]
fn containers_start_side_by_side_and_running_ones_are_left_alone() {
    let pod = pod_of(&["a", "b"], "Always");
    assert_eq!(started(&decide(&pod, vec![])), [("a", 0), ("b", 0)]);
    assert_eq!(started(&decide(&pod, vec![running("a")])), [("b", 0)]);
    let all = decide(&pod, vec![running("a"), running("b")]);
    assert_eq!(all, PodActions::default());
}

#[test]
fn a_created_container_that_never_ran_is_made_again() {
    let created = record("a", ContainerState::Created, 0);
    let actions = decide(&pod_of(&["a"], "Never"), vec![created]);
    assert_eq!(started(&actions), [("a", 1)]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = pod("
        initContainers: [{name: i1, image: x}, {name: i2, image: x}]
        containers: [{name: a, image: x}]");
    let table = [
        (vec![], vec![("i1", 0)]),
        (vec![running("i1")], vec![]),
        (vec![exited("i1", 1)], vec![("i1", 1)]),
        (vec![exited("i1", 0)], vec![("i2", 0)]),
        (vec![exited("i1", 0), exited("i2", 0)], vec![("a", 0)]),
        (vec![exited("i1", 0), exited("i2", 0), running("a")], vec![]),
        (vec![running("a")], vec![]),
    ];
    for (records, expected) in table {
        let label = format!("{records:?}");
        assert_eq!(started(&decide(&pod, records)), expected, "{label}");
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod("
        restartPolicy: Never
        initContainers: [{name: i1, image: x}]
        containers: [{name: a, image: x}]");
    assert_eq!(decide(&pod, vec![exited("i1", 1)]), PodActions::default());
}

#[test]
fn sidecars_start_in_order_wait_for_startup_and_restart() {
    let pod = pod("
        restartPolicy: Never
        initContainers:
        - {name: s, image: x, restartPolicy: Always, startupProbe: {exec: {command: [x]}}}
        - {name: i, image: x}
        containers: [{name: a, image: x}]");
    assert_eq!(started(&decide(&pod, vec![])), [("s", 0)]);
    assert_eq!(started(&decide(&pod, vec![running("s")])), []);
    let up = Snapshot::of(&[("id-s", Kind::Startup, true)]);
    let next = decide_with(&pod, vec![running("s")], &up);
    assert_eq!(started(&next), [("i", 0)]);
    let records = vec![exited("s", 0), exited("i", 0), running("a")];
    assert_eq!(started(&decide(&pod, records)), [("s", 1)]);
}

#[test]
fn failing_probes_and_changes_kill() {
    let pod = pod("
        containers:
        - name: a
          image: x
          livenessProbe: {exec: {command: [x]}, terminationGracePeriodSeconds: 3}");
    let sick = Snapshot::of(&[("id-a", Kind::Liveness, false)]);
    let actions = decide_with(&pod, vec![running("a")], &sick);
    assert_eq!(
        actions.kill[0].message,
        "Container a failed liveness probe, will be restarted"
    );
    assert_eq!(actions.kill[0].grace, Some(3));
    assert!(actions.start.is_empty());

    let unready = Snapshot::of(&[("id-a", Kind::Readiness, false)]);
    let left = decide_with(&pod, vec![running("a")], &unready);
    assert_eq!(left, PodActions::default());

    let mut old = running("a");
    old.hash = "other".into();
    let actions = decide(&pod, vec![old]);
    assert_eq!(
        actions.kill[0].message,
        "Container a definition changed, will be restarted"
    );
}

#[test]
fn backoff_makes_a_container_wait_with_the_known_text() {
    let pod = pod_of(&["a"], "Always");
    let mut backoff = Backoff::new(Duration::from_secs(300));
    backoff.advance(&backoff_key(&pod, &containers(&pod)[0]), NOW, NOW);
    let runtime = PodRuntime {
        sandboxes: vec![sandbox("s0", 0, true)],
        containers: vec![exited("a", 1)],
    };
    let at = |now| {
        compute_pod_actions(
            &pod,
            World {
                runtime: &runtime,
                probes: &Snapshot::default(),
                backoff: &backoff,
                now,
            },
        )
    };
    let early = at(NOW + 4_000);
    assert!(early.start.is_empty());
    assert_eq!(early.waiting[0].left, Duration::from_secs(6));
    assert_eq!(
        early.waiting[0].message,
        "back-off 10s restarting failed container=a pod=web_default(u1)"
    );
    assert_eq!(started(&at(NOW + 10_000)), [("a", 1)]);
}

#[test]
fn durations_print_as_elsewhere() {
    for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3700, "1h1m40s")] {
        assert_eq!(go_duration(Duration::from_secs(seconds)), text);
    }
}
