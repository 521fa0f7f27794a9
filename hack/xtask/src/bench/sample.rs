//! Pairs of measurements, and what is told of them.

use serde_json::json;

/// One case against one peer.
pub struct Comparison {
    pub bench: &'static str,
    pub case: &'static str,
    /// Name and version.
    pub peer: String,
    /// (berth, peer) in milliseconds, taken one right after the other.
    pub pairs: Vec<(f64, f64)>,
}

impl Comparison {
    /// One line for people.
    pub fn line(&self) -> String {
        let (berth, peer) = self.medians();
        format!(
            "{:<4} {:<20} berth {berth:7.2} ms   {:<28} {peer:7.2} ms   ratio {:.2}   ({} runs)",
            self.bench,
            self.case,
            self.peer,
            self.ratio(),
            self.pairs.len()
        )
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        let (berth, peer) = self.medians();
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        json!({
            "bench": self.bench, "case": self.case, "unit": "ms",
            "berth": round(berth), "peer": self.peer, "peer_value": round(peer),
            "ratio": round(self.ratio()), "runs": self.pairs.len(),
        })
        .to_string()
    }

    fn medians(&self) -> (f64, f64) {
        let (berth, peer): (Vec<f64>, Vec<f64>) = self.pairs.iter().copied().unzip();
        (median(berth), median(peer))
    }

    /// The median of the pairs' ratios: load that comes and goes meets both of a pair.
    fn ratio(&self) -> f64 {
        median(
            self.pairs
                .iter()
                .map(|(berth, peer)| berth / peer)
                .collect(),
        )
    }
}

/// The middle value; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_of_pairs() {
        let pairs = vec![(1.0, 2.0), (10.0, 20.0), (3.0, 3.0)];
        let comparison = Comparison {
            bench: "oci",
            case: "run",
            peer: "p 1".into(),
            pairs,
        };
        assert!(
            comparison.json().contains("\"ratio\":0.5"),
            "{}",
            comparison.json()
        );
        assert!(comparison.line().contains("ratio 0.50"));
    }
}
