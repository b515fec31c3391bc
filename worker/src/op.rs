//! What an op is, and the registry of ops that `init` hands to every process.
//!
//! A registry is made before the zygote is forked, so coordinator and workers hold the same one and
//! an [`OpId`] is enough to name an op in a message.

use forkyard_shared::ids::OpId;
use forkyard_shared::protocol::Cause;
use forkyard_shared::sink::Body as Written;
use forkyard_shared::value::{Body, Kind, Value};
use serde::Serialize;

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
    fn run(&self, task: &Task) -> Result<Output, Failed> {
        self(task)
    }
}

/// What an op takes.
#[derive(Clone, Copy, Default)]
pub struct Signature {
    /// The parameters it knows; `None`: it takes any.
    pub params: Option<&'static [ParamSpec]>,
    /// Whether its parameters stand beside `op` in the manifest, and not in `params`.
    pub beside: bool,
    /// How many artifacts it names.
    pub artifacts: Artifacts,
    /// Whether its only point is its effect on the machine: then each node is run, and the node's id
    /// is part of its key.
    pub effect: bool,
}

impl Signature {
    /// Whether it runs a command: then the files that its command line names are part of its key.
    pub fn runs_command(&self) -> bool {
        self.params.is_some_and(|specs| specs.iter().any(|spec| spec.kind == ParamKind::Command))
    }
}

/// How many artifacts an op names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Artifacts {
    /// Any number.
    #[default]
    Any,
    /// None at all.
    None,
    /// Exactly one.
    One,
}

/// A parameter that an op knows.
#[derive(Clone, Copy)]
pub struct ParamSpec {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: ParamKind,
    /// Whether a node must give it.
    pub required: bool,
}

impl ParamSpec {
    /// A parameter that may be left out.
    pub const fn optional(name: &'static str, kind: ParamKind) -> ParamSpec {
        ParamSpec { name, kind, required: false }
    }

    /// A parameter that must be given.
    pub const fn required(name: &'static str, kind: ParamKind) -> ParamSpec {
        ParamSpec { name, kind, required: true }
    }
}

/// What a parameter may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Any value, or another node's result.
    Any,
    /// True or false.
    Flag,
    /// A whole number from 0 up.
    Count,
    /// A number from 0 up.
    Seconds,
    /// A string.
    Text,
    /// A string or another node's result.
    Stream,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Two whole numbers: from, and up to but not with.
    Range,
    /// A list of numbers, or another node's result.
    Vector,
    /// A list of strings.
    Texts,
    /// A program and its arguments, or one line for a shell.
    Command,
    /// A table of strings.
    TextTable,
    /// A table of other nodes' results.
    Results,
}

impl ParamKind {
    /// Whether another node's result may stand there.
    pub fn takes_result(self) -> bool {
        matches!(self, ParamKind::Any | ParamKind::Stream | ParamKind::Vector)
    }

    /// Whether `value` fits, else what was expected.
    pub fn check(self, value: &serde_json::Value) -> Result<(), String> {
        use serde_json::Value::*;
        let text = |v: &serde_json::Value| v.is_string();
        let fits = match self {
            ParamKind::Any => true,
            ParamKind::Flag => value.is_boolean(),
            ParamKind::Count => value.is_u64(),
            ParamKind::Seconds => value.as_f64().is_some_and(|s| (0.0..=1e9).contains(&s)),
            ParamKind::Text | ParamKind::Stream => value.is_string(),
            ParamKind::Choice(words) => value.as_str().is_some_and(|w| words.contains(&w)),
            ParamKind::Range => matches!(value, Array(pair) if pair.len() == 2
                && pair.iter().all(|v| v.is_u64()) && pair[0].as_u64() <= pair[1].as_u64()),
            ParamKind::Vector => matches!(value, Array(v) if v.iter().all(|v| v.is_number())),
            ParamKind::Texts => matches!(value, Array(v) if v.iter().all(text)),
            ParamKind::Command => match value {
                Array(words) => !words.is_empty() && words.iter().all(text),
                line => line.is_string(),
            },
            ParamKind::TextTable => matches!(value, Object(t) if t.values().all(text)),
            ParamKind::Results => false,
        };
        if fits { Ok(()) } else { Err(self.expected()) }
    }

    /// What a value of this kind looks like.
    pub fn expected(self) -> String {
        match self {
            ParamKind::Any => "any value".into(),
            ParamKind::Flag => "true or false".into(),
            ParamKind::Count => "a whole number from 0 up".into(),
            ParamKind::Seconds => "a number of seconds from 0 to 1e9".into(),
            ParamKind::Text => "a string".into(),
            ParamKind::Stream => r#"a string or "{{ nodes.X.result }}""#.into(),
            ParamKind::Choice(words) => format!("one of {}", words.join(", ")),
            ParamKind::Range => "[from, to) as two whole numbers, from <= to".into(),
            ParamKind::Vector => r#"a list of numbers or "{{ nodes.X.result }}""#.into(),
            ParamKind::Texts => "a list of strings".into(),
            ParamKind::Command => "a list of strings: the program and its arguments".into(),
            ParamKind::TextTable => "a table of strings".into(),
            ParamKind::Results => r#"a table of "{{ nodes.X.result }}""#.into(),
        }
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
            Written::File { name, len, digest } => Value { kind, digest, body: Body::File { name, len } },
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
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let full = causes.filter_map(|error| error.downcast_ref::<std::io::Error>()).any(|error| {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        });
        let cause = if full { Cause::DiskFull } else { Cause::Task };
        Failed { cause, ..Failed::new(error.to_string()) }
    }
}

/// The ops that a program knows, by name.
pub struct Ops {
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    version: Option<u32>,
    op: Box<dyn Op + Send + Sync>,
}

impl Ops {
    /// The ops that come with Forkyard.
    pub fn standard() -> Ops {
        crate::ops::standard()
    }

    pub(crate) fn empty() -> Ops {
        Ops { entries: Vec::new() }
    }

    /// Adds an op whose version is the build of the executable: every rebuild runs its nodes anew.
    ///
    /// # Panics
    /// When an op of this name is there already.
    pub fn op(self, name: &str, op: impl Op + Send + Sync + 'static) -> Ops {
        self.add(name, None, op)
    }

    /// Adds an op with a version of its own: raise it when the op's results change.
    ///
    /// # Panics
    /// When an op of this name is there already.
    pub fn versioned(self, name: &str, version: u32, op: impl Op + Send + Sync + 'static) -> Ops {
        self.add(name, Some(version), op)
    }

    fn add(mut self, name: &str, version: Option<u32>, op: impl Op + Send + Sync + 'static) -> Ops {
        assert!(self.find(name).is_none(), "op {name} is registered twice");
        self.entries.push(Entry { name: name.into(), version, op: Box::new(op) });
        self
    }

    /// The op of this name.
    pub fn find(&self, name: &str) -> Option<OpId> {
        self.entries.iter().position(|entry| entry.name == name).map(OpId::new)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = OpId> + use<> {
        (0..self.entries.len()).map(OpId::new)
    }

    /// The name of an op.
    pub fn name(&self, op: OpId) -> &str {
        &self.entries[op.index()].name
    }

    /// Its declared version; `None`: the build of the executable.
    pub fn version(&self, op: OpId) -> Option<u32> {
        self.entries[op.index()].version
    }

    /// The op itself.
    pub fn get(&self, op: OpId) -> &dyn Op {
        &*self.entries[op.index()].op
    }
}
