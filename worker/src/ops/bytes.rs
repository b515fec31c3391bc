//! `bytes`: a range of an artifact's bytes.

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Bytes;

impl Op for Bytes {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::required("length", ParamKind::Count),
            ParamSpec::required("offset", ParamKind::Count),
        ];
        Signature { params: Some(PARAMS), artifacts: Artifacts::One, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let (offset, length): (u64, u64) = (task.param("offset")?, task.param("length")?);
        let bytes = task.artifact_bytes()?;
        let range =
            |from: u64, len: u64| Some(from.try_into().ok()?..from.checked_add(len)?.try_into().ok()?);
        let part = range(offset, length).and_then(|range: std::ops::Range<usize>| bytes.get(range));
        let part = part.ok_or_else(|| {
            let len = bytes.len();
            Failed::new(format!("bytes {offset}..{offset}+{length} are outside the artifact of {len} bytes"))
        })?;
        Ok(Output::bytes(part.to_vec()))
    }
}
