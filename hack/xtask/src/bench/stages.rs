//! Where the time of a `create` goes, part by part, as berth-oci tells with `--debug`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use super::runtime::Runtime;

/// Which line of the log tells.
const MARK: &str = "time taken: ";

/// The median of each part over as many containers, in the order of the parts.
pub fn of(runtime: &Runtime, bundle: &Path, runs: usize) -> Result<String> {
    let mut order = Vec::new();
    let mut taken: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..runs.max(1) {
        for (part, milliseconds) in parse(&runtime.create_telling(bundle)?)? {
            if !order.contains(&part) {
                order.push(part.clone());
            }
            taken.entry(part).or_default().push(milliseconds);
        }
    }
    let told: Vec<String> = order
        .iter()
        .map(|part| format!("{part} {:.2}", median(&mut taken[part].clone())))
        .collect();
    Ok(told.join(", "))
}

/// `… msg="time taken: cgroup 0.210 ms, clone 0.655 ms"` → the parts.
fn parse(log: &str) -> Result<Vec<(String, f64)>> {
    let (_, line) = log.split_once(MARK).context("the log tells no times")?;
    let line = line.lines().next().unwrap_or_default();
    let parts = line.trim_end_matches('"').split(", ");
    parts
        .map(|part| {
            let words = part
                .strip_suffix(" ms")
                .and_then(|part| part.rsplit_once(' '));
            let (name, value) = words.with_context(|| format!("`{part}` is no time"))?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_log_are_read() {
        let log =
            "time=\"t\" level=debug msg=\"time taken: cgroup 0.210 ms, await start 1.000 ms\"\n";
        let parts = parse(log).unwrap();
        assert_eq!(
            parts,
            [("cgroup".into(), 0.21), ("await start".into(), 1.0)]
        );
        assert!(parse("nothing").is_err());
    }
}
