//! `topk`: the rows of a matrix nearest to a vector, exactly.

use forkyard_shared::scan::{self, Metric, TopK as Found};
use serde::Serialize;

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct TopK;

/// `{ids, scores}`, best first.
#[derive(Serialize)]
struct Neighbours {
    ids: Vec<u64>,
    scores: Vec<f32>,
}

impl From<Found> for Neighbours {
    fn from(found: Found) -> Neighbours {
        Neighbours { ids: found.ids, scores: found.scores }
    }
}

impl Op for TopK {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::required("k", ParamKind::Count),
            ParamSpec::optional("metric", ParamKind::Choice(&["cosine", "dot", "l2"])),
            ParamSpec::optional("row", ParamKind::Count),
            ParamSpec::optional("rows", ParamKind::Range),
            ParamSpec::optional("vector", ParamKind::Vector),
        ];
        Signature { params: Some(PARAMS), artifacts: Artifacts::One, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let matrix = task.matrix()?;
        let k = task.param("k")?;
        let metric = match task.optional::<String>("metric")? {
            None => task.artifact()?.metric().unwrap_or(Metric::Cosine),
            Some(word) => {
                Metric::from_name(&word).ok_or_else(|| Failed::new(format!("there is no metric {word}")))?
            }
        };
        let near = |vector: &[f32]| scan::top_k(&matrix, vector, k, metric).map(Neighbours::from);
        let near_row = |row| near(&scan::row_as_f32(&matrix, row)?);
        match (
            task.optional("row")?,
            task.optional::<[u64; 2]>("rows")?,
            task.optional::<Vec<f32>>("vector")?,
        ) {
            (Some(row), None, None) => Output::json(&near_row(row)?),
            (None, Some([from, to]), None) => {
                Output::json(&(from..to).map(near_row).collect::<Result<Vec<_>, _>>()?)
            }
            (None, None, Some(vector)) => Output::json(&near(&vector)?),
            _ => Err(Failed::new("topk takes one of row, rows and vector")),
        }
    }
}
