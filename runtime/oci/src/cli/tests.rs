use super::{Command, Request, VERBS, help, parse, script, version};
use crate::cli::{Global, Shell};

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn command(line: &str) -> Command {
    match parse(words(line), &mut Global::default()) {
        Ok(Request::Run(cli)) => cli.command,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    match parse(words(line), &mut Global::default()) {
        Err(error) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn engines_find_their_version_lines() {
    let text = version();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("berth-oci version 0."), "{text}");
    assert!(lines[1].starts_with("commit: "), "{text}");
    assert_eq!(lines[2], "spec: 1.3.0");
}

/// The calls of containerd's shim, conmon, buildah and CRI-O.
#[test]
fn the_calls_of_engines_are_understood() {
    for line in [
        "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p id",
        "--root /r --log /l --log-format json create --bundle /b --pid-file /p --no-pivot \
         --no-new-keyring --console-socket /s id",
        "--root /r --log /l --log-format json start id",
        "--root /r --log /l --log-format json kill --all id 9",
        "--root /r --log /l --log-format json delete --force id",
        "--root /r --log /l --log-format json exec --process /p --console-socket /s --detach --pid-file /f id",
        "--root /r --log /l --log-format json update --resources=- id",
        "--root /r --log /l --log-format json events --stats id",
        "--root /r --log /l --log-format json ps --format json id",
        "--log-format=json --log=/l --root=/r create --bundle /b --pid-file /p --preserve-fds 2 id",
        "--rootless=auto exec --pid-file /p --process /f --detach --tty --console-socket /s id",
        "--systemd-cgroup --root=/r kill id KILL",
        "--root /r run --no-pivot --no-subreaper --keep -d id",
        "checkpoint --image-path /x --leave-running id",
        "restore --bundle /b --detach id",
        "spec --rootless --bundle /b",
        "--criu /usr/sbin/criu --debug list --quiet --format json",
        "features",
        "state id --root /r",
    ] {
        command(line);
    }
}

#[test]
fn flags_reach_their_fields() {
    let line = "exec -te A=1 -e B=2 -u 1:2 -g 3 -g 4 --cap CAP_CHOWN -c CAP_KILL --cwd /x \
                --no-new-privs --ignore-paused id ls -la --root";
    let Command::Exec(args) = command(line) else {
        panic!("no exec");
    };
    assert!(args.tty && args.no_new_privs && args.ignore_paused && !args.detach);
    assert_eq!(args.env, ["A=1", "B=2"]);
    assert_eq!(args.additional_gids, [3, 4]);
    assert_eq!(args.cap, ["CAP_CHOWN", "CAP_KILL"]);
    assert_eq!(args.command, ["ls", "-la", "--root"]);
    let line = "update --memory 10m --memory-swap -1 --cpu-share=5 --pids-limit -1 id";
    let Command::Update(args) = command(line) else {
        panic!("no update");
    };
    assert_eq!(args.memory_swap.as_deref(), Some("-1"));
    assert_eq!((args.cpu_share, args.pids_limit), (Some(5), Some(-1)));
    let Ok(Request::Run(cli)) = parse(
        words("--systemd-cgroup=false kill --debug id"),
        &mut Global::default(),
    ) else {
        panic!("no kill");
    };
    assert!(!cli.global.systemd_cgroup && cli.global.debug);
    let Command::Kill(args) = cli.command else {
        panic!("no kill");
    };
    assert_eq!(args.signal, "SIGTERM");
}

#[test]
fn a_wrong_word_is_named() {
    for (line, told) in [
        ("", "a verb is missing"),
        ("nope", "unknown verb `nope`"),
        ("--nope start id", "unknown flag `--nope` of `berth-oci`"),
        ("start --nope id", "unknown flag `--nope` of `start`"),
        ("start", "`start` needs CONTAINER"),
        ("state a b", "`state` does not take `b`"),
        ("list -f xml", "`-f`: `xml` is none of table, json"),
        ("run --keep=maybe id", "`--keep`: takes no value"),
        (
            "create --preserve-fds -1 id",
            "`--preserve-fds`: `-1` is no u32 number",
        ),
        ("completion tcsh", "`SHELL`: `tcsh` is not known"),
    ] {
        assert_eq!(error(line), told, "{line}");
    }
}

#[test]
fn every_verb_has_help_and_completion() {
    for verb in VERBS {
        let Ok(Request::Help(Some(name))) = parse([verb.name, "--help"], &mut Global::default())
        else {
            // What a refused verb is given is not read.
            assert!(verb.about.starts_with("Refused"), "{}", verb.name);
            continue;
        };
        let text = help(Some(&name)).expect("it is a verb");
        assert!(text.contains(verb.about), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            assert!(script(shell).contains(verb.name));
        }
    }
    let text = help(None).expect("the program's own");
    assert!(text.contains("Exit status"), "{text}");
    assert!(help(Some("nope")).is_none());
}
