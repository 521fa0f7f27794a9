//! From method and path to what is asked for; the stock kubelet's paths.

use http::{Method, StatusCode};

use super::reply::Refusal;

/// A pod as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID, in the longer form of a path: then only this incarnation is meant.
    pub uid: Option<String>,
}

/// A container as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRef {
    /// Its pod.
    pub pod: PodRef,
    /// Its name in the pod.
    pub name: String,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Alive; open to everyone.
    Healthz,
    /// Prometheus metrics.
    Metrics,
    /// The pods that should run here.
    Pods,
    /// The pods that do.
    RunningPods,
    /// Use of resources by pod.
    StatsSummary,
    /// A container's log.
    Logs(ContainerRef),
    /// A command in a container, as a stream.
    Exec(ContainerRef),
    /// The streams of a container's main process.
    Attach(ContainerRef),
    /// A command in a container, run to its end.
    Run(ContainerRef),
    /// Connections to ports of a pod.
    PortForward(PodRef),
}

impl Route {
    /// A word for the metrics' `path` label.
    pub fn label(&self) -> &'static str {
        match self {
            Route::Healthz => "healthz",
            Route::Metrics => "metrics",
            Route::Pods => "pods",
            Route::RunningPods => "runningpods",
            Route::StatsSummary => "stats/summary",
            Route::Logs(_) => "containerLogs",
            Route::Exec(_) => "exec",
            Route::Attach(_) => "attach",
            Route::Run(_) => "run",
            Route::PortForward(_) => "portForward",
        }
    }
}

/// Finds the route; 404 for paths that are not served, 405 for a wrong method.
pub fn parse(method: &Method, path: &str) -> Result<Route, Refusal> {
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    let (first, rest) = steps.split_first().unwrap_or((&"", &[]));
    let route = match (*first, rest) {
        ("healthz", [] | ["ping" | "syncloop" | ""]) => Route::Healthz,
        ("metrics", []) => Route::Metrics,
        ("pods", [] | [""]) => Route::Pods,
        ("runningpods", [] | [""]) => Route::RunningPods,
        ("stats", ["summary"]) => Route::StatsSummary,
        ("containerLogs", [ns, pod, container]) => Route::Logs(container_of(ns, pod, container)?),
        ("exec", rest) => Route::Exec(container_ref(rest)?),
        ("attach", rest) => Route::Attach(container_ref(rest)?),
        ("run", rest) => Route::Run(container_ref(rest)?),
        ("portForward", [ns, pod]) => Route::PortForward(pod_ref(ns, pod, None)?),
        ("portForward", [ns, pod, uid]) => Route::PortForward(pod_ref(ns, pod, Some(uid))?),
        _ => return Err(no_such_path()),
    };
    let streams = matches!(
        route,
        Route::Exec(_) | Route::Attach(_) | Route::PortForward(_)
    );
    let allowed = match *method {
        Method::POST => streams || matches!(route, Route::Run(_)),
        Method::GET => !matches!(route, Route::Run(_)),
        _ => false,
    };
    if allowed {
        Ok(route)
    } else {
        let text = "405: Method Not Allowed";
        Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text))
    }
}

fn no_such_path() -> Refusal {
    Refusal::not_found("404 page not found")
}

fn container_ref(rest: &[&str]) -> Result<ContainerRef, Refusal> {
    match rest {
        [ns, pod, container] => container_of(ns, pod, container),
        [ns, pod, uid, container] if !container.is_empty() => Ok(ContainerRef {
            pod: pod_ref(ns, pod, Some(uid))?,
            name: (*container).to_owned(),
        }),
        _ => Err(no_such_path()),
    }
}

fn container_of(ns: &str, pod: &str, container: &str) -> Result<ContainerRef, Refusal> {
    if container.is_empty() {
        return Err(no_such_path());
    }
    Ok(ContainerRef {
        pod: pod_ref(ns, pod, None)?,
        name: container.to_owned(),
    })
}

fn pod_ref(ns: &str, pod: &str, uid: Option<&&str>) -> Result<PodRef, Refusal> {
    if ns.is_empty() || pod.is_empty() || uid.is_some_and(|uid| uid.is_empty()) {
        return Err(no_such_path());
    }
    Ok(PodRef {
        namespace: ns.to_owned(),
        name: pod.to_owned(),
        uid: uid.map(|uid| (*uid).to_owned()),
    })
}

/// The decoded query of a request.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Of the part behind `?`.
    pub fn parse(text: Option<&str>) -> Query {
        let pairs = url::form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Query(pairs.into_owned().collect())
    }

    /// The first value of a name.
    pub fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        let matching = self.0.iter().filter(|(n, _)| n == name);
        matching.map(|(_, value)| value.clone()).collect()
    }

    /// `1` or `true`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.first(name), Some("1" | "true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(uid: Option<&str>) -> ContainerRef {
        ContainerRef {
            pod: PodRef {
                namespace: "ns".into(),
                name: "p".into(),
                uid: uid.map(Into::into),
            },
            name: "c".into(),
        }
    }

    #[test]
    fn paths() {
        let pod = |uid| container(uid).pod;
        for (method, path, expected) in [
            (Method::GET, "/healthz", Ok(Route::Healthz)),
            (Method::GET, "/pods", Ok(Route::Pods)),
            (Method::GET, "/runningpods/", Ok(Route::RunningPods)),
            (
                Method::GET,
                "/containerLogs/ns/p/c",
                Ok(Route::Logs(container(None))),
            ),
            (
                Method::POST,
                "/exec/ns/p/c",
                Ok(Route::Exec(container(None))),
            ),
            (
                Method::GET,
                "/exec/ns/p/u/c",
                Ok(Route::Exec(container(Some("u")))),
            ),
            (
                Method::POST,
                "/attach/ns/p/c",
                Ok(Route::Attach(container(None))),
            ),
            (
                Method::POST,
                "/run/ns/p/u/c",
                Ok(Route::Run(container(Some("u")))),
            ),
            (
                Method::POST,
                "/portForward/ns/p",
                Ok(Route::PortForward(pod(None))),
            ),
            (
                Method::POST,
                "/portForward/ns/p/u",
                Ok(Route::PortForward(pod(Some("u")))),
            ),
            (Method::GET, "/run/ns/p/c", Err(405)),
            (Method::POST, "/containerLogs/ns/p/c", Err(405)),
            (Method::DELETE, "/pods", Err(405)),
            (Method::GET, "/exec/ns/p", Err(404)),
            (Method::GET, "/exec/ns/p/", Err(404)),
            (Method::GET, "/exec//p/c", Err(404)),
            (Method::GET, "/logs/x", Err(404)),
            (Method::GET, "/", Err(404)),
            (Method::GET, "", Err(404)),
        ] {
            let got = parse(&method, path).map_err(|r| r.code.as_u16());
            assert_eq!(got, expected, "{method} {path}");
        }
    }

    #[test]
    fn queries_repeat_and_decode() {
        let query = Query::parse(Some("command=a&command=b%20c&tty=1&output=true&input=0"));
        assert_eq!(query.all("command"), ["a", "b c"]);
        assert!(query.flag("tty") && query.flag("output") && !query.flag("input"));
    }
}
