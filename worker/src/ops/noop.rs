//! `noop`: does nothing, for graphs whose shape is the point.

use crate::op::{Artifacts, Failed, Op, Output, Signature};
use crate::task::Task;

pub(super) struct Noop;

impl Op for Noop {
    fn signature(&self) -> Signature {
        Signature { params: Some(&[]), artifacts: Artifacts::None, effect: true, ..Signature::default() }
    }

    fn run(&self, _: &Task) -> Result<Output, Failed> {
        Ok(Output::null())
    }
}
