//! `crash`: dies or hangs on purpose in the first so many attempts, for stress and tests.

use std::time::Duration;

use forkyard_shared::sys;
use nix::sys::signal::{Signal, raise};

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Crash;

impl Op for Crash {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[
            ParamSpec::optional("hang", ParamKind::Seconds),
            ParamSpec::optional("panic", ParamKind::Text),
            ParamSpec::optional("signal", ParamKind::Count),
            ParamSpec::optional("status", ParamKind::Count),
            ParamSpec::optional("times", ParamKind::Count),
        ];
        Signature { params: Some(PARAMS), artifacts: Artifacts::None, effect: true, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        if task.optional("times")?.is_some_and(|times: u32| task.attempt() > times) {
            return Ok(Output::null());
        }
        if let Some(number) = task.optional::<i32>("signal")? {
            let signal = Signal::try_from(number)
                .map_err(|_| Failed::new(format!("parameter signal: there is no signal {number}")))?;
            // The runtime takes the first SIGSEGV or SIGBUS for itself, and steps back.
            raise(signal)?;
            raise(signal)?;
            return Ok(Output::null());
        }
        if let Some(seconds) = task.optional("hang")? {
            std::thread::sleep(Duration::from_secs_f64(seconds));
            return Ok(Output::null());
        }
        if let Some(message) = task.optional::<String>("panic")? {
            panic!("{message}");
        }
        sys::exit_now(task.optional("status")?.unwrap_or(1))
    }
}
