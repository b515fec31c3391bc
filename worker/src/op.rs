//! What an op is: what it takes, what it returns, how it fails.

use forkyard_shared::protocol::Cause;
use forkyard_shared::sink::{Body as Written, is_unwritable};
use forkyard_shared::value::{Body, Kind, Value};
use serde::Serialize;

use crate::params::Signature;
use crate::task::Task;

/// What a node runs. Called in a worker process, one task at a time.
pub trait Op {
    /// What it takes, so that a manifest is checked before anything runs.
    fn signature(&self) -> Signature {
        Signature::default()
    }

    /// Runs one task.
    ///
    /// # Errors
    /// The text of a [`Failed`] reaches the user as the node's error.
    fn run(&self, task: &Task) -> Result<Output, Failed>;
}

impl<F: Fn(&Task) -> Result<Output, Failed>> Op for F {
    /// Anything.
    fn signature(&self) -> Signature {
        Signature { state: true, ..Signature::default() }
    }

    fn run(&self, task: &Task) -> Result<Output, Failed> {
        self(task)
    }
}

/// What an op returns.
#[derive(Debug)]
pub struct Output {
    pub(crate) value: Value,
    /// What a command wrote to stderr.
    pub(crate) log: Vec<u8>,
}

impl Output {
    /// A JSON value, in canonical form: maps come out with sorted keys if they go in so
    /// (`serde_json::Value` and `BTreeMap` do).
    pub fn json(value: &impl Serialize) -> Result<Output, Failed> {
        let text = serde_json::to_vec(value).map_err(|e| Failed::new(format!("encode result: {e}")))?;
        Ok(Output::raw(Kind::Json, text))
    }

    /// The JSON value `null`.
    pub fn null() -> Output {
        Output::raw(Kind::Json, b"null".to_vec())
    }

    /// Bytes as they are.
    pub fn bytes(bytes: Vec<u8>) -> Output {
        Output::raw(Kind::Bytes, bytes)
    }

    /// Bytes that are known to be of this kind.
    pub(crate) fn raw(kind: Kind, bytes: Vec<u8>) -> Output {
        Output::of(Value::inline(kind, bytes))
    }

    /// What was written into the task's sink.
    pub fn written(kind: Kind, body: Written) -> Output {
        Output::of(match body {
            Written::Inline { bytes, digest } => Value { kind, digest, body: Body::Inline(bytes) },
            Written::File { name, len, digest, packed } => {
                Value { kind, digest, body: Body::File { name, len, packed } }
            }
        })
    }

    /// The same result, with a log beside it.
    pub fn with_log(self, log: Vec<u8>) -> Output {
        Output { log, ..self }
    }

    fn of(value: Value) -> Output {
        Output { value, log: Vec::new() }
    }
}

/// Why a task failed.
#[derive(Debug)]
pub struct Failed {
    pub(crate) message: String,
    pub(crate) log: Vec<u8>,
    pub(crate) cause: Cause,
}

impl Failed {
    /// A failure that says this.
    pub fn new(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), log: Vec::new(), cause: Cause::Task }
    }

    /// The same failure, with what is behind it.
    pub(crate) fn because(self, cause: Cause) -> Failed {
        Failed { cause, ..self }
    }

    /// The same failure, with a log beside it.
    pub fn with_log(self, log: Vec<u8>) -> Failed {
        Failed { log, ..self }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failed {
    fn from(error: E) -> Failed {
        Failed::of(&error)
    }
}

impl Failed {
    /// The failure that an error is: one of the store, if that cannot be written.
    pub(crate) fn of(error: &(dyn std::error::Error + 'static)) -> Failed {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let of_store = causes.filter_map(|error| error.downcast_ref()).any(is_unwritable);
        let cause = if of_store { Cause::Store } else { Cause::Task };
        Failed { cause, ..Failed::new(error.to_string()) }
    }
}
