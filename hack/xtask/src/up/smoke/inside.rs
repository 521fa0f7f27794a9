//! Step d, second part: logs, exec, port-forward, cp, describe, events.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::tour::{Tour, expect};
use super::{Step, step};
use crate::images;

pub const STEPS: &[Step] = &[
    step("logs", logs),
    step("logs -f follows", logs_follow),
    step("exec passes the exit code", exec_code),
    step("exec -i: piped standard input, closed half", exec_stdin),
    step(
        "exec -it: a terminal of the right size, and resize works",
        exec_terminal,
    ),
    step("attach to a running container", attach),
    step("port-forward", port_forward),
    step("cp to and from a pod", copy),
    step(
        "describe pod: Scheduled, Pulling, Pulled with time and size, Created, Started",
        describe,
    ),
    step("kill the main process: restarted, count 1", killed),
    step("logs -p shows the container before", logs_previous),
];

fn logs(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    tour.eventually(10, |tour| {
        expect(&tour.run(&["logs", &pod])?, "GET / HTTP/1.1")
    })?;
    let tail = tour.run(&["logs", "--tail=1", "--timestamps", &pod])?;
    ensure!(tail.lines().count() == 1 && tail.contains("T"), "{tail:?}");
    Ok(())
}

fn logs_follow(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let mut follow = tour
        .command(&["logs", "-f", "--tail=0", &pod])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = follow.stdout.take().context("no pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // the receiver is gone once the line was seen
            let _ = sender.send(line);
        }
    });
    let result = tour.eventually(15, |tour| {
        tour.shell(&pod, "curl -s http://127.0.0.1:8080/followed >/dev/null")?;
        let seen: Vec<String> = lines.try_iter().collect();
        ensure!(
            seen.iter().any(|line| line.contains("/followed")),
            "nothing new came"
        );
        Ok(())
    });
    follow.kill()?;
    follow.wait()?;
    result
}

fn exec_code(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let output = tour.feed(
        &[
            "exec",
            &pod,
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 7",
        ],
        "",
    )?;
    ensure!(output.status.code() == Some(7), "{}", output.status);
    expect(&String::from_utf8_lossy(&output.stdout), "out")?;
    expect(&String::from_utf8_lossy(&output.stderr), "err")
}

fn exec_stdin(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let input = "line\n".repeat(20_000);
    // wc prints only after the end of its input: the half-close must arrive
    let output = tour.feed(&["exec", "-i", &pod, "--", "wc", "-l"], &input)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    expect(&String::from_utf8_lossy(&output.stdout), "20000")
}

fn exec_terminal(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let pause = if tour.limit(1).as_secs() > 1 { 12 } else { 3 };
    // kubectl sends the first size when the program may be running already: until then there is none
    let inside =
        format!("until stty size 2>/dev/null; do sleep 0.1; done; sleep {pause}; stty size");
    let resize = format!(
        "(sleep {}; stty rows 50 cols 132 </dev/tty) &",
        (pause + 1) / 2
    );
    let script = format!(
        "stty rows 30 cols 100; {resize} {} exec -it {pod} -- sh -c '{inside}'",
        tour.kubectl.display()
    );
    // script(1) gives kubectl a terminal of its own
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &script, "/dev/null"])
        .env("KUBECONFIG", tour.kubeconfig());
    let output = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = output.spawn().context("cannot run script(1)")?;
    let stdin = child.stdin.take();
    let output = child.wait_with_output()?;
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout);
    expect(&text, "30 100")?;
    expect(&text, "50 132")
}

fn attach(tour: &mut Tour) -> Result<()> {
    let image = tour.image("busybox:latest");
    tour.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: echo}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {image}\n    \
         stdin: true\n    stdinOnce: true\n    command: [sh, -c, \"read line; echo got $line\"]\n"
    ))?;
    tour.run(&[
        "wait",
        "--for=condition=Ready",
        "pod/echo",
        &tour.timeout(20),
    ])?;
    let mut child = tour
        .command(&["attach", "-i", "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    stdin.write_all(b"berth\n")?;
    let output = child.wait_with_output()?;
    drop(stdin);
    tour.eventually(10, |tour| {
        expect(&tour.run(&["logs", "echo"])?, "got berth")
    })?;
    tour.run(&["delete", "pod", "echo", &tour.timeout(30)])?;
    expect(&String::from_utf8_lossy(&output.stdout), "got berth")
}

fn port_forward(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let mut forward = tour
        .command(&[
            "port-forward",
            "--address=127.0.0.1",
            &format!("pod/{pod}"),
            ":8080",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    // Kept open to the end: kubectl prints a line a connection, and dies of a closed pipe.
    let mut out = BufReader::new(forward.stdout.take().context("no pipe")?);
    let result = (|| {
        // kubectl prints the port it took: "Forwarding from 127.0.0.1:PORT -> 8080"
        let mut line = String::new();
        out.read_line(&mut line)?;
        let port = line
            .split("127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let port = port.with_context(|| format!("no port in {line:?}"))?;
        for _ in 0..3 {
            let mut answer = images::agent()
                .get(format!("http://127.0.0.1:{port}/"))
                .call()?;
            expect(&answer.body_mut().read_to_string()?, "Hello from berth.")?;
        }
        Ok(())
    })();
    forward.kill()?;
    forward.wait()?;
    result
}

fn copy(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let (there, back) = (tour.file("there"), tour.file("back"));
    let content = (0..200_000).map(|n| format!("{n}\n")).collect::<String>();
    fs::write(&there, &content)?;
    let remote = format!("{pod}:/tmp/copied");
    tour.run(&["cp", &there.display().to_string(), &remote])?;
    tour.run(&["cp", &remote, &back.display().to_string()])?;
    ensure!(
        fs::read_to_string(&back)? == content,
        "not the same after both ways"
    );
    Ok(())
}

fn describe(tour: &mut Tour) -> Result<()> {
    let pods = tour.pods("app=web")?;
    let mut texts = String::new();
    for pod in &pods {
        let text = tour.run(&["describe", "pod", pod])?;
        for reason in ["Scheduled", "Created", "Started", "Pulled"] {
            expect(&text, reason)?;
        }
        texts.push_str(&text);
    }
    // of two pods on one node only the first needs to pull
    expect(&texts, "Pulling image")?;
    expect(&texts, "Successfully pulled image")?;
    expect(&texts, "Image size: ")?;
    expect(&texts, " in ")
}

fn killed(tour: &mut Tour) -> Result<()> {
    let pod = tour.pod("app=web")?;
    let output = tour.feed(&["exec", &pod, "--", "sh", "-c", "kill 1"], "")?;
    // the shell may end by itself, or with its namespace
    let code = output.status.code();
    ensure!(matches!(code, Some(0 | 137)), "exec ended with {code:?}");
    tour.eventually(20, |tour| {
        let text = tour.run(&[
            "get",
            "pod",
            &pod,
            "-o",
            "jsonpath={.status.containerStatuses[0].restartCount} \
             {.status.containerStatuses[0].ready}",
        ])?;
        ensure!(text == "1 true", "restarts and readiness: {text}");
        Ok(())
    })
}

fn logs_previous(tour: &mut Tour) -> Result<()> {
    for pod in tour.pods("app=web")? {
        let count = "jsonpath={.status.containerStatuses[0].restartCount}";
        if tour.run(&["get", "pod", &pod, "-o", count])? == "1" {
            return expect(&tour.run(&["logs", "-p", &pod])?, "GET / HTTP/1.1");
        }
    }
    anyhow::bail!("no pod was restarted")
}
