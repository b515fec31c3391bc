//! `[alerts]`: thresholds; `false` switches one off.

use serde_json::{Map, Value};

use super::problem::Fault;
use super::words::{did_you_mean, parse_duration, parse_size};
use crate::alerts::Alerts;

/// What an `[alerts]` table says beside what is so anyway.
pub(super) fn read(alerts: &mut Alerts, table: &Map<String, Value>) -> Result<(), Fault> {
    for (key, value) in table {
        let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}, or false"));
        let is_off = *value == Value::Bool(false);
        let text = || value.as_str().unwrap_or_default();
        match key.as_str() {
            "node_time" if is_off => alerts.node_time = None,
            "memory" if is_off => alerts.memory = None,
            "growth" if is_off => alerts.growth = None,
            "errors" if is_off => alerts.errors = None,
            "node_time" => {
                alerts.node_time =
                    Some(parse_duration(text()).map_err(|_| wrong("a duration like \"10s\""))?);
            }
            "memory" => {
                alerts.memory = Some(percent(text()).ok_or_else(|| wrong("a percentage like \"80%\""))?);
            }
            "growth" => {
                let size = text().strip_suffix("/h").map(parse_size).and_then(Result::ok);
                alerts.growth = Some(size.ok_or_else(|| wrong("a size an hour like \"1000MB/h\""))?);
            }
            "errors" => {
                alerts.errors = Some(percent(text()).ok_or_else(|| wrong("a percentage like \"5%\""))?);
            }
            _ => {
                let hint = did_you_mean(key, ["node_time", "memory", "growth", "errors"]);
                return Err(Fault::at(key, format!("`[alerts]` has no key `{key}`{hint}")));
            }
        }
    }
    Ok(())
}

fn percent(text: &str) -> Option<f64> {
    let number: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (0.0..=100.0).contains(&number).then_some(number / 100.0)
}
