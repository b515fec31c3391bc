//! `forkyard doctor`: a line a check, the worst first.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::exit::{Exit, Failure, printed};
use crate::doctor::{Check, State, examine};
use crate::text;

pub(super) fn doctor(store: &Path, as_json: bool) -> Result<Exit, Failure> {
    let checks = examine(store).map_err(|error| Failure::new(Exit::Resources, error))?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({ "check": check.check, "state": check.state.word(), "value": check.value,
                    "meaning": check.meaning, "advice": check.advice })
            })
            .collect();
        return printed(writeln!(out, "{}", json!({ "v": 1, "checks": checks })));
    }
    let mut lines: Vec<String> = checks.iter().map(line).collect();
    let of = |state| checks.iter().filter(|check| check.state == state).count();
    lines.push(format!(
        "{}, {}, {} ok",
        text::plural(of(State::Warn), "warning"),
        text::plural(of(State::Note), "note"),
        of(State::Ok)
    ));
    printed(lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

fn line(check: &Check) -> String {
    let word = console::style(check.state.word());
    let word = match check.state {
        State::Warn => word.red().bold(),
        State::Note => word.yellow(),
        State::Ok => word.green(),
    };
    let advice = check.advice.as_ref().map_or(String::new(), |advice| format!("; {advice}"));
    format!("{word:<4}  {}: {}{advice}", check.check.replace('_', " "), check.meaning)
}
