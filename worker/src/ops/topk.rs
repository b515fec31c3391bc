//! `topk`: the rows of a matrix nearest to a vector, exactly.

use forkyard_shared::artifact::Layout;
use forkyard_shared::scan::{self, Metric, Normalize, Rows, ScanError, Search, TopK as Found};

use super::question::{self, Neighbours};
use crate::attach::Artifact;
use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature, mask_of};
use crate::task::{Task, matrix};

pub(super) struct TopK;

impl From<Found> for Neighbours {
    fn from(found: Found) -> Neighbours {
        Neighbours { ids: found.ids, scores: found.scores }
    }
}

impl Op for TopK {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::optional("filter", ParamKind::Filter),
            ParamSpec::required("k", ParamKind::Count),
            ParamSpec::optional("metric", ParamKind::Choice(&["cosine", "dot", "l2"])),
            ParamSpec::optional("normalize", ParamKind::FlagOr(&["queries", "rows"])),
            question::ROW,
            question::ROWS,
            question::VECTOR,
            question::VECTORS,
        ];
        Signature { params: Some(PARAMS), artifacts: Artifacts::OneAndNamed, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let filter: serde_json::Value = task.optional("filter")?.unwrap_or_default();
        let mask = mask_of(&filter);
        let searched = task.artifact_beside(mask)?;
        let matrix = matrix(searched)?;
        let rows = Rows {
            range: range_of(&filter),
            mask: mask.map(|name| bytes_of_mask(task.artifact_of(name)?)).transpose()?,
        };
        let search = Search {
            k: task.param("k")?,
            metric: metric(task, searched)?,
            normalize: normalize(task)?,
            rows,
        };
        let row = |row| scan::row_as_f32(&matrix, row);
        let near = |vectors: &[Vec<f32>]| -> Result<Vec<Neighbours>, ScanError> {
            Ok(search.nearest_to_each(&matrix, vectors)?.into_iter().map(Neighbours::from).collect())
        };
        question::answer(task, row, near)
    }
}

fn metric(task: &Task, searched: &Artifact) -> Result<Metric, Failed> {
    match task.optional::<String>("metric")? {
        None => Ok(searched.metric().unwrap_or(Metric::Cosine)),
        Some(word) => {
            Metric::from_name(&word).ok_or_else(|| Failed::new(format!("there is no metric {word}")))
        }
    }
}

fn normalize(task: &Task) -> Result<Normalize, Failed> {
    let value: serde_json::Value = task.optional("normalize")?.unwrap_or_default();
    Ok(match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Normalize::Both,
        (_, Some("queries")) => Normalize::Queries,
        (_, Some("rows")) => Normalize::Rows,
        _ => Normalize::Neither,
    })
}

fn range_of(filter: &serde_json::Value) -> Option<[u64; 2]> {
    let ends = filter.as_array().or_else(|| filter.get("rows")?.as_array())?;
    Some([ends.first()?.as_u64()?, ends.get(1)?.as_u64()?])
}

/// A byte a row: an array of one dimension, or the bytes of the file.
fn bytes_of_mask(artifact: &Artifact) -> Result<&[u8], Failed> {
    let setup = &artifact.setup;
    let is = match artifact.matrix().transpose()? {
        None if setup.layout == Layout::Raw => return Ok(artifact.bytes()),
        None => "is not bytes".into(),
        Some(matrix) => match matrix.shape() {
            shape if shape.dtype.size_bytes() != 1 => format!("has elements of {}", shape.dtype.name()),
            shape if shape.cols != 1 => format!("has {} columns", shape.cols),
            shape => return Ok(matrix.rows_bytes(0..shape.rows)),
        },
    };
    Err(Failed::new(format!(
        "artifact \"{}\" ({}) {is}, but a filter has a byte a row, 0 where the row does not count: \
         numpy.save(path, mask.astype('uint8'))",
        setup.name, setup.path
    )))
}
