//! What the server counts, under the names of the stock server's stable metrics.

use std::{fmt::Write, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::request::Attributes;

/// Upper bounds of the duration histogram, seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    verb: String,
    resource: String,
}

/// The metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let durations = Family::new_with_constructor(histogram);
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and status code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Time to the answer's head, watches and streams left out",
            durations.clone(),
        );
        Self {
            registry,
            requests,
            durations,
        }
    }

    /// Counts an answered request. Only served resources are counted by name, so that the
    /// number of series stays bounded.
    pub fn count(&self, attributes: &Attributes, code: u16, took: Duration) {
        let served = attributes.is_resource && attributes.served().is_some();
        let text = |part: &str| {
            if served {
                part.to_owned()
            } else {
                String::new()
            }
        };
        let labels = RequestLabels {
            verb: attributes.verb.to_uppercase(),
            group: text(&attributes.group),
            version: text(&attributes.version),
            resource: text(&attributes.resource),
            subresource: if code == 404 {
                String::new()
            } else {
                text(&attributes.subresource)
            },
            code,
        };
        self.requests.get_or_create(&labels).inc();
        let is_stream = attributes.verb == "watch"
            || matches!(
                attributes.subresource.as_str(),
                "log" | "exec" | "attach" | "portforward"
            );
        if !is_stream {
            let labels = DurationLabels {
                verb: labels.verb,
                resource: labels.resource,
            };
            self.durations
                .get_or_create(&labels)
                .observe(took.as_secs_f64());
        }
    }

    /// The OpenMetrics text, with the memory and CPU time of the process.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            return String::new();
        }
        let end = "# EOF\n";
        text.truncate(text.len() - if text.ends_with(end) { end.len() } else { 0 });
        if let Some(bytes) = resident_bytes() {
            let _ = write!(
                text,
                "# HELP process_resident_memory_bytes Resident memory size in bytes.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n"
            );
        }
        text.push_str(end);
        text
    }
}

/// Resident memory from /proc/self/status (proc_pid_status(5)), bytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are_about() {
        let metrics = Metrics::new();
        let attributes = Attributes {
            verb: "get",
            path: "/api/v1/namespaces/d/pods/p".into(),
            is_resource: true,
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "d".into(),
            name: "p".into(),
            ..Attributes::default()
        };
        metrics.count(&attributes, 200, Duration::from_millis(2));
        let text = metrics.render();
        let line = r#"apiserver_request_total{verb="GET",group="",version="v1",resource="pods",subresource="",code="200"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
