//! `value`: a constant, or another node's result under a name of its own.

use forkyard_shared::protocol::Param;
use forkyard_shared::value::Kind;

use crate::op::{Failed, Op, Output};
use crate::params::{Artifacts, ParamKind, ParamSpec, Signature};
use crate::task::Task;

pub(super) struct Constant;

impl Op for Constant {
    fn signature(&self) -> Signature {
        const PARAMS: &[ParamSpec] = &[ParamSpec::required("value", ParamKind::Any)];
        Signature { params: Some(PARAMS), artifacts: Artifacts::None, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        let param = task.raw("value").ok_or_else(|| Failed::new("parameter value is missing"))?;
        let kind = match param {
            Param::Json(_) | Param::List(_) => Kind::Json,
            Param::Inline(kind, _) | Param::Blob { kind, .. } => *kind,
        };
        Ok(Output::raw(kind, task.read(param)?))
    }
}
