use super::*;
use crate::pod::admit::Rejection;
use crate::pod::runtime::Sandbox;
use crate::testing::{pod, pod_of};

const NOW: i64 = 1_700_000_000_000;

fn record(name: &str, attempt: u32, exit: Option<i32>) -> ContainerRecord {
    ContainerRecord {
        id: format!("{name}{attempt}"),
        name: name.into(),
        sandbox_id: "s0".into(),
        attempt,
        state: match exit {
            Some(_) => runtime::ContainerState::Exited,
            None => runtime::ContainerState::Running,
        },
        exit_code: exit.unwrap_or_default(),
        started_at: NOW * 1_000_000,
        ..ContainerRecord::default()
    }
}

struct Case {
    pod: Pod,
    records: Vec<ContainerRecord>,
    probes: Snapshot,
    waiting: HashMap<String, WaitReason>,
    phase: Phase,
    before: PodStatus,
}

fn case(pod: Pod, records: Vec<ContainerRecord>) -> Case {
    Case {
        pod,
        records,
        probes: Snapshot::default(),
        waiting: HashMap::new(),
        phase: Phase::Syncing,
        before: PodStatus::default(),
    }
}

impl Case {
    fn status(&self) -> PodStatus {
        let runtime = PodRuntime {
            sandboxes: vec![Sandbox {
                id: "s0".into(),
                ready: true,
                ips: vec!["10.88.0.9".into()],
                ..Sandbox::default()
            }],
            containers: self.records.clone(),
        };
        generate(
            &self.pod,
            Facts {
                runtime: &runtime,
                probes: &self.probes,
                waiting: &self.waiting,
                phase: &self.phase,
                before: &self.before,
                host_ip: "192.0.2.7",
                runtime_name: "berth",
                now: NOW,
            },
        )
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }
}

fn condition_of(status: &PodStatus, kind: &str) -> (String, Option<String>) {
    let all = status.conditions.as_ref().unwrap();
    let found = all.iter().find(|c| c.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn phases() {
    let ended = Phase::Terminated {
        reason: Reason::Completed,
    };
    for (policy, records, ending, phase) in [
        ("Always", vec![], false, "Pending"),
        ("Always", vec![record("a", 0, None)], false, "Running"),
        ("Always", vec![record("a", 0, Some(0))], false, "Running"),
        (
            "OnFailure",
            vec![record("a", 0, Some(0))],
            false,
            "Succeeded",
        ),
        ("OnFailure", vec![record("a", 0, Some(1))], false, "Running"),
        ("Never", vec![record("a", 0, Some(0))], false, "Succeeded"),
        ("Never", vec![record("a", 0, Some(1))], false, "Failed"),
        ("Always", vec![record("a", 0, Some(0))], true, "Succeeded"),
        ("Always", vec![record("a", 0, Some(143))], true, "Failed"),
    ] {
        let mut case = case(pod_of(&["a"], policy), records);
        if ending {
            case.phase = ended.clone();
        }
        assert_eq!(case.phase(), phase, "{policy} {ending} {:?}", case.records);
    }
    let both = vec![record("a", 0, Some(0)), record("b", 0, Some(2))];
    assert_eq!(case(pod_of(&["a", "b"], "Never"), both).phase(), "Failed");
    let half = vec![record("a", 0, Some(0)), record("b", 0, None)];
    assert_eq!(case(pod_of(&["a", "b"], "Never"), half).phase(), "Running");
}

#[test]
fn a_pod_waits_for_its_init_containers() {
    let pod = pod("
        restartPolicy: Never
        initContainers: [{name: i, image: x}]
        containers: [{name: a, image: x}]");
    let case_of = |records| case(pod.clone(), records);
    let waiting = case_of(vec![record("i", 0, None)]).status();
    assert_eq!(waiting.phase.as_deref(), Some("Pending"));
    let app = &waiting.container_statuses.as_ref().unwrap()[0];
    let reason = app.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(reason.reason.as_deref(), Some("PodInitializing"));
    assert_eq!(
        condition_of(&waiting, "Initialized"),
        ("False".into(), Some("ContainersNotInitialized".into()))
    );
    assert_eq!(case_of(vec![record("i", 0, Some(1))]).phase(), "Failed");
    let done = case_of(vec![record("i", 0, Some(0)), record("a", 0, None)]).status();
    assert_eq!(condition_of(&done, "Initialized").0, "True");
    assert_eq!(condition_of(&done, "Ready").0, "True");
}

#[test]
fn a_restart_shows_the_exit_before_and_the_count() {
    let status = case(
        pod_of(&["a"], "Always"),
        vec![record("a", 1, None), record("a", 0, Some(137))],
    )
    .status();
    let app = &status.container_statuses.unwrap()[0];
    assert_eq!(app.restart_count, 1);
    assert_eq!(app.container_id.as_deref(), Some("berth://a1"));
    let last = app
        .last_state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref()),
        (137, Some("Error"))
    );
}

#[test]
fn back_off_shows_as_waiting_with_the_exit_as_last_state() {
    let mut case = case(pod_of(&["a"], "Always"), vec![record("a", 2, Some(1))]);
    let wait = WaitReason {
        reason: "CrashLoopBackOff".into(),
        message: "back-off 20s".into(),
    };
    case.waiting.insert("a".into(), wait);
    let status = case.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let app = &status.container_statuses.unwrap()[0];
    let state = app.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(state.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = app
        .last_state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!(
        (last.exit_code, app.restart_count, app.ready),
        (1, 2, false)
    );
}

#[test]
fn readiness_and_startup_decide_ready() {
    let with_probes = pod("
        containers:
        - name: a
          image: x
          readinessProbe: {tcpSocket: {port: 1}}
          startupProbe: {tcpSocket: {port: 1}}");
    for (results, started, ready) in [
        (vec![], false, false),
        (vec![("a0", Kind::Startup, true)], true, false),
        (
            vec![("a0", Kind::Startup, true), ("a0", Kind::Readiness, true)],
            true,
            true,
        ),
        (vec![("a0", Kind::Readiness, true)], false, false),
    ] {
        let mut case = case(with_probes.clone(), vec![record("a", 0, None)]);
        case.probes = Snapshot::of(&results);
        let status = case.status();
        let app = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(
            (app.started, app.ready),
            (Some(started), ready),
            "{results:?}"
        );
        let expected = if ready { "True" } else { "False" };
        assert_eq!(condition_of(&status, "Ready").0, expected);
    }
}

#[test]
fn a_refused_pod_is_failed_with_the_reason() {
    let mut case = case(pod_of(&["a"], "Always"), vec![]);
    case.phase = Phase::Terminated {
        reason: Reason::Rejected(Rejection {
            reason: "UnsupportedField".into(),
            message: "field spec.x".into(),
        }),
    };
    let status = case.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("UnsupportedField"));
    assert!(status.container_statuses.is_none());
}

#[test]
fn times_of_unchanged_conditions_stay_and_foreign_conditions_survive() {
    let mut case = case(pod_of(&["a"], "Always"), vec![record("a", 0, None)]);
    let old = time_of_millis(1_000_000);
    let gate = |kind: &str, status: &str| PodCondition {
        type_: kind.into(),
        status: status.into(),
        last_transition_time: Some(old.clone()),
        ..PodCondition::default()
    };
    case.before.conditions = Some(vec![gate("Ready", "True"), gate("Foreign", "True")]);
    let conditions = case.status().conditions.unwrap();
    let time = |kind: &str| {
        let found = conditions.iter().find(|c| c.type_ == kind).unwrap();
        found.last_transition_time.clone().unwrap()
    };
    assert_eq!(time("Ready"), old);
    assert_eq!(time("Foreign"), old);
    assert_ne!(time("Initialized"), old);
}

#[test]
fn a_final_phase_survives_the_loss_of_the_records() {
    let mut case = case(pod_of(&["a"], "Never"), vec![]);
    case.before.phase = Some("Succeeded".into());
    case.phase = Phase::Terminated {
        reason: Reason::Completed,
    };
    assert_eq!(case.phase(), "Succeeded");
}
