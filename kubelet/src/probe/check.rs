//! One run of a probe: exec, HTTP, TCP or gRPC.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::cri::{Cri, CriError};
use crate::pod::expand::expand_with;

/// Most of an exec probe's output that is kept, bytes.
const MAX_OUTPUT: usize = 10 * 1024;

/// The container instance a probe is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// CRI id.
    pub container_id: String,
    /// Address of the pod.
    pub pod_ip: String,
    /// The container's spec, for its named ports.
    pub container: Container,
}

/// What one run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The probe passed; `None` when it could not be made, which counts as nothing.
    pub passed: Option<bool>,
    /// What to show people when it did not.
    pub output: String,
}

fn passed() -> Finding {
    Finding {
        passed: Some(true),
        output: String::new(),
    }
}

fn failed(output: impl Into<String>) -> Finding {
    Finding {
        passed: Some(false),
        output: output.into(),
    }
}

fn unknown(output: impl Into<String>) -> Finding {
    Finding {
        passed: None,
        output: output.into(),
    }
}

/// Runs a probe once.
pub async fn run(cri: &Cri, probe: &Probe, subject: &Subject) -> Finding {
    let seconds = probe.timeout_seconds.unwrap_or(1).max(1);
    let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
    if let Some(action) = &probe.exec {
        let command = action.command.clone().unwrap_or_default();
        return exec(cri, subject, command, limit).await;
    }
    if let Some(get) = &probe.http_get {
        return match port(&get.port, &subject.container) {
            Some(port) => http_get(&http::Target::new(get, &subject.pod_ip, port), limit).await,
            None => failed(format!("couldn't find port: {:?} in container", get.port)),
        };
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.as_deref().filter(|h| !h.is_empty());
        return match port(&tcp.port, &subject.container) {
            Some(port) => tcp_connect(host.unwrap_or(&subject.pod_ip), port, limit).await,
            None => failed(format!("couldn't find port: {:?} in container", tcp.port)),
        };
    }
    if let Some(action) = &probe.grpc {
        let service = action.service.as_deref().unwrap_or_default();
        return match grpc::check(&subject.pod_ip, action.port, service, limit).await {
            Ok(()) => passed(),
            Err(error) => failed(error.to_string()),
        };
    }
    unknown("missing probe handler")
}

async fn exec(cri: &Cri, subject: &Subject, command: Vec<String>, limit: Duration) -> Finding {
    // Probes see the container's own environment; only spec variables expand here.
    let command = command.iter().map(|w| expand_with(w, &[])).collect();
    let run = cri.exec_sync(&subject.container_id, command, limit);
    match tokio::time::timeout(limit + Duration::from_secs(1), run).await {
        Ok(Ok(output)) if output.code == 0 => passed(),
        Ok(Ok(mut output)) => {
            output.output.truncate(MAX_OUTPUT);
            failed(String::from_utf8_lossy(&output.output).into_owned())
        }
        Ok(Err(CriError::Refused {
            code: tonic::Code::DeadlineExceeded,
            ..
        }))
        | Err(_) => failed(format!("command timed out after {}s", limit.as_secs())),
        Ok(Err(error)) => unknown(error.reason()),
    }
}

async fn http_get(target: &http::Target, limit: Duration) -> Finding {
    match http::get(target, limit).await {
        Ok(answer) if (200..400).contains(&answer.status) => passed(),
        Ok(answer) => failed(format!(
            "HTTP probe failed with statuscode: {}",
            answer.status
        )),
        Err(error) => failed(error.to_string()),
    }
}

async fn tcp_connect(host: &str, port: u16, limit: Duration) -> Finding {
    match tokio::time::timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => passed(),
        Ok(Err(error)) => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or(&text);
            failed(format!(
                "dial tcp {host}:{port}: connect: {}",
                text.to_lowercase()
            ))
        }
        Err(_) => failed(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// A port by number, or by its name in the container.
#[must_use]
pub fn port(asked: &IntOrString, container: &Container) -> Option<u16> {
    let number = match asked {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let mut ports = container.ports.iter().flatten();
            match ports.find(|p| p.name.as_ref() == Some(text)) {
                Some(port) => port.container_port,
                None => text.parse().ok()?,
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_resolve_by_number_and_name() {
        let pod = crate::testing::pod(
            "containers: [{name: a, ports: [{name: web, containerPort: 8080}]}]",
        );
        let container = &crate::pod::containers(&pod)[0];
        for (asked, found) in [
            (IntOrString::Int(80), Some(80)),
            (IntOrString::String("web".into()), Some(8080)),
            (IntOrString::String("81".into()), Some(81)),
            (IntOrString::String("none".into()), None),
            (IntOrString::Int(0), None),
            (IntOrString::Int(70_000), None),
        ] {
            assert_eq!(port(&asked, container), found, "{asked:?}");
        }
    }

    #[tokio::test]
    async fn a_tcp_probe_passes_on_a_listener_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limit = Duration::from_secs(5);
        assert_eq!(tcp_connect("127.0.0.1", port, limit).await, passed());
        drop(listener);
        let finding = tcp_connect("127.0.0.1", port, limit).await;
        assert_eq!(
            finding.output,
            format!("dial tcp 127.0.0.1:{port}: connect: connection refused")
        );
    }
}
