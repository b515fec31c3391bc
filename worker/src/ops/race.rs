//! `race`: stands for nodes whose result is that of another one. The coordinator decides; nothing is run.

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, Signature};
use crate::task::Task;

pub(super) struct Race;

impl Op for Race {
    fn signature(&self) -> Signature {
        Signature { params: Some(&[]), artifacts: Artifacts::None, ..Signature::default() }
    }

    fn run(&self, _: &Task) -> Result<Output, Failed> {
        Err(Failed::new("BUG: a race is decided, not run"))
    }
}
