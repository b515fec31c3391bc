//! `alloc`: touches private memory and holds it, as a node does that loads too much.

use std::time::Duration;

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Alloc;

impl Op for Alloc {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::required("bytes", ParamKind::Count),
            ParamSpec::optional("seconds", ParamKind::Seconds),
        ];
        Signature { params: Some(PARAMS), artifacts: Artifacts::None, effect: true, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let bytes: usize = task.param("bytes")?;
        let mut held: Vec<u8> = Vec::new();
        held.try_reserve_exact(bytes)
            .map_err(|_| Failed::new(format!("allocate {bytes} bytes: the system has no room")))?;
        // A constant other than 0, else the pages might never be touched.
        held.resize(bytes, 1);
        std::thread::sleep(Duration::from_secs_f64(task.optional("seconds")?.unwrap_or(0.0)));
        std::hint::black_box(&held);
        Ok(Output::null())
    }
}
