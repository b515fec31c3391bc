//! `ann`: the entries of an index that are most likely the nearest to a vector.

use std::sync::Mutex;

use forkyard_shared::ann::{self, AnnError, EXPANSION, Found, Walk};

use super::question::{self, Neighbours};
use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

#[derive(Default)]
pub(super) struct Ann {
    /// Each worker has its own; it has one thread, so nobody waits for it.
    walk: Mutex<Walk>,
}

impl From<Found> for Neighbours {
    fn from(found: Found) -> Neighbours {
        Neighbours { ids: found.keys, scores: found.distances }
    }
}

impl Op for Ann {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::optional("expansion", ParamKind::Count),
            ParamSpec::required("k", ParamKind::Count),
            question::ROW,
            question::ROWS,
            question::VECTOR,
            question::VECTORS,
        ];
        Signature { params: Some(PARAMS), artifacts: Artifacts::One, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let index = task.usearch()?;
        let (k, expansion) = (task.param("k")?, task.optional("expansion")?.unwrap_or(EXPANSION));
        let near = |vectors: &[Vec<f32>]| -> Result<Vec<Neighbours>, AnnError> {
            let mut walk = self.walk.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let found = vectors.iter().map(|vector| walk.nearest(&index, vector, k, expansion));
            found.map(|found| found.map(Neighbours::from)).collect()
        };
        question::answer(task, |key| ann::vector_of(&index, key), near)
    }
}
