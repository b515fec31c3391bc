//! `python`: a function in a Python process. What it takes is said here; running it is [`crate::python`]'s.

use crate::op::{Failed, Op, Output};
use crate::params::{ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Python;

impl Op for Python {
    fn signature(&self) -> Signature {
        const BESIDE: &[ParamSpec] = &[
            ParamSpec::optional("args", ParamKind::List),
            ParamSpec::required("call", ParamKind::Call),
            ParamSpec::optional("code", ParamKind::Modules),
            ParamSpec::optional("inputs", ParamKind::Results),
        ];
        Signature { beside: BESIDE, state: true, ..Signature::default() }
    }

    fn run(&self, _: &Task) -> Result<Output, Failed> {
        Err(Failed::new("BUG: a Python function outside of a Python process"))
    }
}
