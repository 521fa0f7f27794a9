//! Which crate may depend on which: the invariants of ARCHITECTURE.md over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::process;

/// A package of the graph: where it lies in the workspace (empty for others), and
/// the packages it depends on outside tests and build scripts.
#[derive(Default)]
struct Node {
    folder: String,
    dependencies: BTreeSet<String>,
}

/// Package name → node. Two versions of one package count as one.
type Graph = BTreeMap<String, Node>;

/// Crates which are linked into programs that live beside sandboxes.
const WITHOUT_RUNTIME: [&str; 5] = [
    "runtime/audit",
    "runtime/oci",
    "runtime/monitor",
    "runtime/pause",
    "cni-plugins/",
];

/// (crates below, must not reach crates below, reason)
const FORBIDDEN: [(&str, &str, &str); 6] = [
    (
        "kubelet",
        "runtime/",
        "the kubelet knows the runtime only as CRI gRPC",
    ),
    ("runtime/", "kubelet", "the CRI server serves any kubelet"),
    (
        "runtime/",
        "control-plane/",
        "the CRI server knows no API objects",
    ),
    (
        "cni-plugins/",
        "runtime/cri",
        "plugins work under any runtime",
    ),
    (
        "control-plane/scheduler",
        "control-plane/store",
        "it works against any API server",
    ),
    (
        "control-plane/controllers",
        "control-plane/store",
        "they work against any API server",
    ),
];

/// Every arrow that must not be there.
pub fn check() -> Result<Vec<String>> {
    Ok(violations(&graph()?))
}

fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for (name, node) in graph.iter().filter(|(_, node)| !node.folder.is_empty()) {
        let reached = reachable(graph, name);
        let below = |prefix: &str| node.folder.starts_with(prefix);
        if WITHOUT_RUNTIME.iter().any(|prefix| below(prefix)) && reached.contains("tokio") {
            found.push(format!(
                "{name} reaches tokio: it must have no async runtime"
            ));
        }
        for (from, to, reason) in FORBIDDEN {
            let target = reached.iter().find(|r| folder(graph, r).starts_with(to));
            if let (true, Some(target)) = (below(from), target) {
                found.push(format!("{name} reaches {target}: {reason}"));
            }
        }
        let wiring = below("berth") || below("tests/") || below("hack/") || below("control-plane/");
        for target in node.dependencies.iter().filter(|_| !wiring) {
            let folder = folder(graph, target);
            if folder.starts_with("control-plane/") && folder != "control-plane/api" {
                found.push(format!(
                    "{name} imports {target}: only control-plane/api may be imported"
                ));
            }
        }
    }
    found
}

fn folder<'a>(graph: &'a Graph, name: &str) -> &'a str {
    graph.get(name).map_or("", |node| node.folder.as_str())
}

fn reachable(graph: &Graph, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(name) = open.pop() {
        for next in graph
            .get(&name)
            .into_iter()
            .flat_map(|node| &node.dependencies)
        {
            if seen.insert(next.clone()) {
                open.push(next.clone());
            }
        }
    }
    seen
}

fn graph() -> Result<Graph> {
    let metadata = MetadataCommand::new()
        .current_dir(process::workspace())
        .other_options([
            "--filter-platform".into(),
            "x86_64-unknown-linux-gnu".into(),
        ])
        .exec()?;
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|p| (&p.id, p.name.to_string()))
        .collect();
    let mut graph = Graph::new();
    for package in metadata.workspace_packages() {
        let folder = package
            .manifest_path
            .parent()
            .context("a manifest without a folder")?;
        let folder = folder.strip_prefix(&metadata.workspace_root)?.to_string();
        graph.entry(package.name.to_string()).or_default().folder = folder;
    }
    for node in metadata.resolve.context("cargo resolves nothing")?.nodes {
        let entry = graph.entry(names[&node.id].clone()).or_default();
        for dependency in &node.deps {
            let normal = dependency
                .dep_kinds
                .iter()
                .any(|k| k.kind == DependencyKind::Normal);
            if normal {
                entry.dependencies.insert(names[&dependency.pkg].clone());
            }
        }
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(rows: &[(&str, &str, &[&str])]) -> Graph {
        let row = |(name, folder, needs): &(&str, &str, &[&str])| {
            let dependencies = needs.iter().map(|n| (*n).to_owned()).collect();
            (
                (*name).to_owned(),
                Node {
                    folder: (*folder).to_owned(),
                    dependencies,
                },
            )
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn finds_each_forbidden_arrow() {
        let graph = graph(&[
            ("oci", "runtime/oci", &["middle"]),
            ("middle", "", &["tokio"]),
            ("tokio", "", &[]),
            ("kubelet", "kubelet", &["oci"]),
            ("store", "control-plane/store", &[]),
            ("dns", "node/dns", &["store"]),
        ]);
        assert_eq!(
            violations(&graph),
            [
                "dns imports store: only control-plane/api may be imported",
                "kubelet reaches oci: the kubelet knows the runtime only as CRI gRPC",
                "oci reaches tokio: it must have no async runtime",
            ]
        );
    }
}
