//! `berth ps`: pods and containers of this machine.

use berth_proto::cri::{
    Container, ContainerState, ListContainersRequest, ListPodSandboxRequest, PodSandbox,
    PodSandboxState,
};

use crate::local;

/// Flags of `berth ps`.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    #[command(flatten)]
    local: local::Options,
    /// Show ended pods and containers too
    #[arg(long, short)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

struct Row<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    state: &'static str,
    restarts: u32,
    created: i64,
    id: &'a str,
}

/// Prints one row a container, and one for a pod without any.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let (sandboxes, containers) = local::ask(async {
        let mut cri = local::connect(&options.local.cri_socket).await?;
        let sandboxes = cri
            .list_pod_sandbox(ListPodSandboxRequest { filter: None })
            .await?;
        let containers = cri
            .list_containers(ListContainersRequest { filter: None })
            .await?;
        Ok((
            sandboxes.into_inner().items,
            containers.into_inner().containers,
        ))
    })?;
    let mut rows: Vec<Row<'_>> = sandboxes
        .iter()
        .flat_map(|sandbox| rows_of(sandbox, &containers))
        .filter(|row| options.all || matches!(row.state, "Running" | "Created" | "Ready"))
        .collect();
    rows.sort_by_key(|row| (row.namespace, row.pod, row.container));
    if options.json {
        print_json(&rows);
    } else {
        print_table(&rows);
    }
    Ok(())
}

fn rows_of<'a>(sandbox: &'a PodSandbox, containers: &'a [Container]) -> Vec<Row<'a>> {
    let meta = sandbox.metadata.as_ref();
    let (namespace, pod) = meta.map_or(("", ""), |m| (m.namespace.as_str(), m.name.as_str()));
    let own: Vec<Row<'a>> = containers
        .iter()
        .filter(|c| c.pod_sandbox_id == sandbox.id)
        .map(|c| Row {
            namespace,
            pod,
            container: c.metadata.as_ref().map_or("", |m| m.name.as_str()),
            state: match c.state() {
                ContainerState::ContainerCreated => "Created",
                ContainerState::ContainerRunning => "Running",
                ContainerState::ContainerExited => "Exited",
                ContainerState::ContainerUnknown => "Unknown",
            },
            restarts: c.metadata.as_ref().map_or(0, |m| m.attempt),
            created: c.created_at,
            id: &c.id,
        })
        .collect();
    if !own.is_empty() {
        return own;
    }
    let ready = sandbox.state() == PodSandboxState::SandboxReady;
    vec![Row {
        namespace,
        pod,
        container: "-",
        state: if ready { "Ready" } else { "NotReady" },
        restarts: meta.map_or(0, |m| m.attempt),
        created: sandbox.created_at,
        id: &sandbox.id,
    }]
}

fn print_json(rows: &[Row<'_>]) {
    let list: Vec<serde_json::Value> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "namespace": row.namespace,
                "pod": row.pod,
                "container": row.container,
                "state": row.state,
                "attempt": row.restarts,
                "createdAt": row.created,
                "id": row.id,
            })
        })
        .collect();
    println!("{}", serde_json::Value::Array(list));
}

fn print_table(rows: &[Row<'_>]) {
    let cells: Vec<[String; 7]> = rows
        .iter()
        .map(|row| {
            [
                row.namespace.to_owned(),
                row.pod.to_owned(),
                row.container.to_owned(),
                row.state.to_owned(),
                row.restarts.to_string(),
                local::age(row.created),
                row.id.chars().take(13).collect(),
            ]
        })
        .collect();
    let heads = [
        "NAMESPACE",
        "POD",
        "CONTAINER",
        "STATE",
        "ATTEMPT",
        "AGE",
        "ID",
    ]
    .map(str::to_owned);
    let widths: Vec<usize> = (0..heads.len())
        .map(|i| {
            cells
                .iter()
                .chain([&heads])
                .map(|row| row[i].len())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in std::iter::once(&heads).chain(&cells) {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", line.join("  ").trim_end());
    }
}
