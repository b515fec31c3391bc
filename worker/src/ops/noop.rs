//! `noop`: does nothing, for graphs whose shape is the point.

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, Signature};
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
