//! `sleep`: waits, as a node does that asks a server.

use std::time::Duration;

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Sleep;

impl Op for Sleep {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[ParamSpec::required("seconds", ParamKind::Seconds)];
        Signature { params: Some(PARAMS), artifacts: Artifacts::None, effect: true, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        std::thread::sleep(Duration::from_secs_f64(task.param("seconds")?));
        Ok(Output::null())
    }
}
