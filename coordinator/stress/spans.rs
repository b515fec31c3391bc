//! How long it took from node to node: from the trace of a run, which has the times as workers saw them.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::Figure;
use crate::stats::Series;

/// From the start of each node to that of the next, of a run whose nodes come one after the other.
pub(super) fn latency(trace: &Path) -> io::Result<Vec<Figure>> {
    let (mut times, mut before) = (Series::default(), None);
    for line in BufReader::new(File::open(trace)?).lines() {
        let Ok(span) = serde_json::from_str::<Value>(line?.trim_end_matches(',')) else { continue };
        let Some(start_us) = span["ts"].as_f64() else { continue };
        if let Some(before) = before.replace(start_us) {
            times.add(((start_us - before) * 1e3).max(0.0) as u64);
        }
    }
    let beside = |name, part, floor| {
        let value = times.quantile(part) as f64 / 1e9;
        Figure { name, value, floor: Some(floor) }
    };
    let alone = |name, part| Figure { floor: None, ..beside(name, part, "") };
    if times.count() == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![
        beside("node_to_node_p50_s", 0.5, "round_trip_p50_s"),
        alone("node_to_node_p95_s", 0.95),
        beside("node_to_node_p99_s", 0.99, "round_trip_p99_s"),
        alone("node_to_node_max_s", 1.0),
    ])
}
