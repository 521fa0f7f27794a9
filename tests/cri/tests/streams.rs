//! Exec, attach and port-forward as kubectl opens them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_proto::cri;
use berth_test_cri::client::{self, Client};
use berth_test_cri::node::{Pod, test_pod};
use berth_test_cri::stream::{Session, Streaming};

const SERVER: &str = env!("CARGO_BIN_EXE_berth-test-cri");
const WITHIN: Duration = Duration::from_secs(10);

async fn exec_url(pod: &mut Pod, id: &str, script: &str, stdin: bool, tty: bool) -> Result<String> {
    let request = cri::ExecRequest {
        container_id: id.to_owned(),
        cmd: ["sh", "-c", script].map(str::to_owned).into(),
        tty,
        stdin,
        stdout: true,
        stderr: !tty,
    };
    Ok(pod.client.runtime.exec(request).await?.into_inner().url)
}

#[test]
fn root_exec_half_closes_and_passes_the_exit_code() {
    test_pod("exec", 31, SERVER, async |mut pod| {
        let id = pod.start_sleeping().await?;
        let url = exec_url(&mut pod, &id, "cat; echo end >&2; exit 4", true, false).await?;
        let mut session = Session::open(&url, true, false).await?;
        let stdin = session.stdin.context("no stdin")?;
        session.streaming.send(stdin, b"hello", true).await?;
        let ended = session.end().await?;
        let seen = (ended.stdout.as_str(), ended.stderr.as_str());
        ensure!(seen == ("hello", "end\n"), "{ended:?}");
        ensure!(
            ended.status["details"]["causes"][0]["message"] == "4",
            "{}",
            ended.status
        );
        ensure!(
            Session::open(&url, true, false).await.is_err(),
            "a token serves once"
        );
        pod.finish().await
    });
}

#[test]
fn root_exec_gives_all_of_a_long_output() {
    test_pod("long", 32, SERVER, async |mut pod| {
        let id = pod.start_sleeping().await?;
        let script = "i=0; while [ $i -lt 20000 ]; do \
                      echo 0123456789012345678901234567890123456789; i=$((i+1)); done";
        let url = exec_url(&mut pod, &id, script, false, false).await?;
        let ended = Session::open(&url, false, false).await?.end().await?;
        ensure!(ended.stdout.len() == 20_000 * 41, "{}", ended.stdout.len());
        ensure!(ended.status["status"] == "Success", "{}", ended.status);
        let url = exec_url(&mut pod, &id, "sleep 1000 & echo started", false, false).await?;
        let ended = Session::open(&url, false, false).await?.end().await?;
        ensure!(
            ended.stdout == "started\n",
            "a child that holds the pipe delays nothing"
        );
        pod.finish().await
    });
}

#[test]
fn root_a_terminal_has_a_size() {
    test_pod("term", 33, SERVER, async |mut pod| {
        let id = pod.start_sleeping().await?;
        let url = exec_url(&mut pod, &id, "exec sh", true, true).await?;
        let mut session = Session::open(&url, true, true).await?;
        let (stdin, resize) = (
            session.stdin.context("stdin")?,
            session.resize.context("resize")?,
        );
        session
            .streaming
            .send(resize, br#"{"Width":100,"Height":40}"#, false)
            .await?;
        session.await_output("# ").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        session.streaming.send(stdin, b"stty size\n", false).await?;
        session.await_output("40 100").await?;
        session.streaming.send(stdin, b"exit 6\n", false).await?;
        let ended = session.end().await?;
        ensure!(
            ended.status["details"]["causes"][0]["message"] == "6",
            "{}",
            ended.status
        );
        pod.finish().await
    });
}

#[test]
fn root_attach_reaches_the_containers_own_streams() {
    test_pod("atta", 34, SERVER, async |mut pod| {
        let mut cat = client::container("cat", &pod.image, &["cat"]);
        (cat.stdin, cat.stdin_once) = (true, true);
        let id = pod.start(&cat).await?;
        let attach = cri::AttachRequest {
            container_id: id.clone(),
            stdin: true,
            tty: false,
            stdout: true,
            stderr: true,
        };
        let url = pod.client.runtime.attach(attach).await?.into_inner().url;
        let mut session = Session::open(&url, true, false).await?;
        let stdin = session.stdin.context("stdin")?;
        session.streaming.send(stdin, b"attached\n", true).await?;
        session.await_output("attached").await?;
        let ended = pod.client.await_exit(&id, WITHIN).await?;
        ensure!(ended.exit_code == 0, "the half-close reached it: {ended:?}");
        ensure!(pod.log("cat").contains(" stdout F attached"));
        pod.finish().await
    });
}

#[test]
fn root_a_port_of_a_pod_is_reached() {
    test_pod("port", 35, SERVER, async |mut pod| {
        let port = echo_in(&mut pod.client, &pod.id).await?;
        let request = cri::PortForwardRequest {
            pod_sandbox_id: pod.id.clone(),
            port: vec![i32::from(port)],
        };
        let url = pod
            .client
            .runtime
            .port_forward(request)
            .await?
            .into_inner()
            .url;
        let mut forward = Streaming::open(&url, "portforward.k8s.io").await?;
        let (error, data) = open_pair(&mut forward, port, "0").await?;
        forward.send(error, b"", true).await?;
        forward.send(data, b"through the pod", true).await?;
        forward
            .read_until(|now| now.finished.contains(&data))
            .await?;
        ensure!(
            forward.text(data) == "through the pod",
            "{}",
            forward.text(data)
        );

        let (error, data) = open_pair(&mut forward, 1, "1").await?;
        let both = |now: &Streaming| now.finished.contains(&error) && now.finished.contains(&data);
        forward.read_until(both).await?;
        let text = forward.text(error);
        ensure!(text.contains("failed to connect to localhost:1"), "{text}");
        pod.finish().await
    });
}

async fn open_pair(forward: &mut Streaming, port: u16, request: &str) -> Result<(u32, u32)> {
    let port = port.to_string();
    let headers = |kind| {
        [
            ("streamtype", kind),
            ("port", port.as_str()),
            ("requestid", request),
        ]
    };
    Ok((
        forward.stream(&headers("error")).await?,
        forward.stream(&headers("data")).await?,
    ))
}

/// Starts an echo of one connection on the loopback of the pod; its port.
async fn echo_in(client: &mut Client, pod: &str) -> Result<u16> {
    let request = cri::PodSandboxStatusRequest {
        pod_sandbox_id: pod.to_owned(),
        verbose: true,
    };
    let status = client
        .runtime
        .pod_sandbox_status(request)
        .await?
        .into_inner();
    let info: serde_json::Value = serde_json::from_str(&status.info["info"])?;
    let netns = berth_netlink::netns::open(format!("/proc/{}/ns/net", info["pid"]).as_ref())?;
    let listener =
        berth_netlink::netns::run_in(netns, || std::net::TcpListener::bind("127.0.0.1:0"))??;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        if let Ok((mut socket, _)) = listener.accept()
            && let Ok(mut back) = socket.try_clone()
        {
            let _ = std::io::copy(&mut socket, &mut back);
        }
    });
    Ok(port)
}
