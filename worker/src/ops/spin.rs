//! `spin`: burns a core, as a node does that computes.

use std::time::{Duration, Instant};

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Spin;

impl Op for Spin {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[ParamSpec::required("seconds", ParamKind::Seconds)];
        Signature { params: Some(PARAMS), artifacts: Artifacts::None, effect: true, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let (start, wanted) = (Instant::now(), Duration::from_secs_f64(task.param("seconds")?));
        while start.elapsed() < wanted {
            std::hint::spin_loop();
        }
        Ok(Output::null())
    }
}
