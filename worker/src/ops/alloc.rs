//! `alloc`: touches private memory and holds it, as a node does that loads too much.

use std::time::Duration;

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

/// No page is smaller.
const PAGE: usize = 4096;

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
        let refused = |_| Failed::new(format!("allocate {bytes} bytes: the system has no room"));
        Vec::<u8>::new().try_reserve_exact(bytes).map_err(refused)?;
        // Zeros come untouched from the system; one byte of each page touches it.
        let mut held = vec![0u8; bytes];
        held.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
        std::thread::sleep(Duration::from_secs_f64(task.optional("seconds")?.unwrap_or(0.0)));
        std::hint::black_box(&held);
        Ok(Output::null())
    }
}
