//! Pairs of measurements, and what is told of them.

use serde_json::json;

/// One case against one peer.
pub struct Comparison {
    pub bench: &'static str,
    pub case: String,
    /// `ms`, `KiB` or `1/s`.
    pub unit: &'static str,
    /// Name and version.
    pub peer: String,
    /// (berth, peer), taken one right after the other.
    pub pairs: Vec<(f64, f64)>,
    /// What the reader has to know to judge the comparison.
    pub note: String,
}

/// What is told of one side.
struct Side {
    min: f64,
    median: f64,
    p95: f64,
}

impl Comparison {
    /// What holds for several results, said once.
    pub fn heading(&self) -> String {
        format!("berth against {} ({})", self.peer, self.note)
    }

    /// One line for people, below its heading: medians, and from the least to the 95th
    /// percentile. On a busy machine the least is nearest to what the work costs.
    pub fn line(&self) -> String {
        let (berth, peer) = self.sides();
        format!(
            "{:<4} {:<21} {:8.2} ({:.2} to {:.2}) against {:8.2} ({:.2} to {:.2}) {:<3}  ratio {:5.2}  ({} runs)",
            self.bench,
            self.case,
            berth.median,
            berth.min,
            berth.p95,
            peer.median,
            peer.min,
            peer.p95,
            self.unit,
            self.ratio(),
            self.pairs.len(),
        )
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let (berth, peer) = self.sides();
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "bench": self.bench, "case": self.case, "unit": self.unit,
            "berth": round(berth.median),
            "berth_min": round(berth.min), "berth_p95": round(berth.p95),
            "peer": self.peer,
            "peer_value": round(peer.median),
            "peer_min": round(peer.min), "peer_p95": round(peer.p95),
            "ratio": round(self.ratio()), "runs": self.pairs.len(),
            "note": self.note,
        })
        .to_string()
    }

    fn sides(&self) -> (Side, Side) {
        let (berth, peer): (Vec<f64>, Vec<f64>) = self.pairs.iter().copied().unzip();
        let side = |values: Vec<f64>| Side {
            min: quantile(values.clone(), 0.0),
            median: quantile(values.clone(), 0.5),
            p95: quantile(values, 0.95),
        };
        (side(berth), side(peer))
    }

    /// The median of the pairs' ratios: load that comes and goes meets both of a pair.
    fn ratio(&self) -> f64 {
        let ratios = self.pairs.iter().map(|(berth, peer)| berth / peer);
        quantile(ratios.collect(), 0.5)
    }
}

/// The value below which the share `q` lies, interpolated between neighbours; NaN of nothing.
pub fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    values[below] + (values[above] - values[below]) * (place - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_pairs() {
        let pairs = vec![(1.0, 2.0), (10.0, 20.0), (3.0, 3.0)];
        let comparison = Comparison {
            bench: "oci",
            case: "run".into(),
            unit: "ms",
            peer: "p 1".into(),
            pairs,
            note: "both idle".into(),
        };
        let told: serde_json::Value = serde_json::from_str(&comparison.json()).unwrap();
        assert_eq!(told["ratio"], 0.5, "{told}");
        assert_eq!(told["berth"], 3.0);
        assert_eq!(told["note"], "both idle");
        assert!(comparison.line().contains("ratio  0.50"));
        assert!(comparison.heading().contains("p 1 (both idle)"));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(vec![4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile((0..=100).map(f64::from).collect(), 0.95), 95.0);
        assert!(quantile(Vec::new(), 0.5).is_nan());
    }
}
