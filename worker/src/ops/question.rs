//! What `topk` and `ann` have in common: which vectors are asked for, and the shape of an answer.

use serde::Serialize;

use crate::op::{Failed, Output};
use crate::params::{ParamKind, ParamSpec};
use crate::task::Task;

/// Parameters that say which vectors are asked for.
pub(super) const ROW: ParamSpec = ParamSpec::optional("row", ParamKind::Count);
pub(super) const ROWS: ParamSpec = ParamSpec::optional("rows", ParamKind::Range);
pub(super) const VECTOR: ParamSpec = ParamSpec::optional("vector", ParamKind::Vector);
pub(super) const VECTORS: ParamSpec = ParamSpec::optional("vectors", ParamKind::Vectors);

/// Rows whose vectors are held at once: as many as a search takes together.
const AT_ONCE: usize = 64;

/// `{ids, scores}`, best first.
#[derive(Serialize)]
pub(super) struct Neighbours {
    pub ids: Vec<u64>,
    pub scores: Vec<f32>,
}

/// The answer for one vector, or a list of them for several: `row` gives the vector of a row, `near` answers.
pub(super) fn answer<E: std::error::Error + 'static>(
    task: &Task,
    row: impl Fn(u64) -> Result<Vec<f32>, E>,
    near: impl Fn(&[Vec<f32>]) -> Result<Vec<Neighbours>, E>,
) -> Result<Output, Failed> {
    let one = |vector| Output::json(&near(&[vector])?[0]);
    match (
        task.optional("row")?,
        task.optional::<[u64; 2]>("rows")?,
        task.numbers("vector")?,
        task.many_numbers("vectors")?,
    ) {
        (Some(number), None, None, None) => one(row(number)?),
        (None, Some([from, to]), None, None) => {
            let mut found = Vec::new();
            for first in (from..to).step_by(AT_ONCE) {
                let rows = first..to.min(first.saturating_add(AT_ONCE as u64));
                found.extend(near(&rows.map(&row).collect::<Result<Vec<_>, _>>()?)?);
            }
            Output::json(&found)
        }
        (None, None, Some(vector), None) => one(vector),
        (None, None, None, Some(vectors)) => Output::json(&near(&vectors)?),
        _ => Err(Failed::new("exactly one of row, rows, vector and vectors must be given")),
    }
}
