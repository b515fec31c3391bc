//! What a program says about a node, and what the engine is told of it.

use std::sync::Arc;
use std::time::Duration;

use forkyard_shared::ids::{ArtifactId, OpId};
use forkyard_shared::protocol::Reads;
use forkyard_worker::Ops;
use forkyard_worker::params::Artifacts;
use serde::Serialize;

use super::error::SubmitError;
use super::ticket::Slot;
use crate::manifest::{kind_of, nearest};

/// One call of an op: [`crate::Pool::submit`] takes it and gives a [`crate::Ticket`] for its result.
///
/// ```
/// use std::time::Duration;
/// use forkyard::Node;
///
/// let node = Node::new("topk").artifact("m").param("row", 7).param("k", 10).timeout(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug)]
pub struct Node {
    op: String,
    artifacts: Vec<String>,
    params: Vec<(String, String)>,
    salt: Option<String>,
    priority: i32,
    cache: bool,
    timeout: Option<Duration>,
    attempts: u32,
    backoff: Duration,
    memory: Option<u64>,
    reads: Reads,
    /// What was said that cannot be; told when it is submitted.
    mistake: Option<String>,
}

impl Node {
    /// A node that runs this op once, without a time limit, whose result is kept if the pool has a store.
    pub fn new(op: impl Into<String>) -> Node {
        Node {
            op: op.into(),
            artifacts: Vec::new(),
            params: Vec::new(),
            salt: None,
            priority: 0,
            cache: true,
            timeout: None,
            attempts: 1,
            backoff: Duration::ZERO,
            memory: None,
            reads: Reads::Nothing,
            mistake: None,
        }
    }

    /// A parameter; a second one of the name takes its place.
    pub fn param(mut self, name: impl Into<String>, value: impl Serialize) -> Node {
        let name = name.into();
        // By way of a value, whose keys are sorted: the same value is the same text, and so the same key.
        match serde_json::to_value(value) {
            Ok(value) => {
                let at = self.params.binary_search_by(|(known, _)| known.cmp(&name));
                match at {
                    Ok(at) => self.params[at].1 = value.to_string(),
                    Err(at) => self.params.insert(at, (name, value.to_string())),
                }
            }
            Err(error) => self.mistake = Some(format!("parameter {name} cannot be JSON: {error}")),
        }
        self
    }

    /// An artifact of the pool that the op is shown; several are in the order in which they are named.
    pub fn artifact(mut self, name: impl Into<String>) -> Node {
        self.artifacts.push(name.into());
        self
    }

    /// A variable of the pool ([`crate::Builder::var`]) that the op may read, with
    /// [`task.state().get(name)`](crate::State::get). Its value is a part of what tells this node from others.
    pub fn reads(mut self, name: impl Into<String>) -> Node {
        match &mut self.reads {
            Reads::Keys(keys) => keys.push(name.into()),
            reads => *reads = Reads::Keys(vec![name.into()]),
        }
        self
    }

    /// How long an attempt may take before its worker is killed.
    pub fn timeout(mut self, limit: Duration) -> Node {
        self.timeout = Some(limit);
        self
    }

    /// How often it is tried if the op fails or takes too long, and how long to wait before the second attempt; each
    /// later wait is twice the one before. (A crash of its worker costs no attempt: it is tried again at once, twice.)
    pub fn retry(mut self, attempts: u32, backoff: Duration) -> Node {
        (self.attempts, self.backoff) = (attempts.max(1), backoff);
        self
    }

    /// Of nodes that wait for a worker the highest priority comes first, then who was submitted first. 0 if not said.
    pub fn priority(mut self, priority: i32) -> Node {
        self.priority = priority;
        self
    }

    /// Whether a stored result will do, and its own is stored; true if not said. It means nothing in a pool without
    /// a store.
    pub fn cache(mut self, cache: bool) -> Node {
        self.cache = cache;
        self
    }

    /// Tells it from others that are the same: repeated samples of one thing.
    pub fn salt(mut self, salt: impl Into<String>) -> Node {
        self.salt = Some(salt.into());
        self
    }

    /// The private memory, in bytes, that its worker is expected to hold while it runs. What is not said is learnt.
    pub fn memory(mut self, bytes: u64) -> Node {
        self.memory = Some(bytes);
        self
    }

    /// Checks it, as a manifest would be.
    pub(super) fn check(self, ops: &Ops, artifacts: &[String]) -> Result<Checked, SubmitError> {
        let wrong = SubmitError::Wrong;
        if let Some(mistake) = self.mistake {
            return Err(wrong(format!("`{}`: {mistake}", self.op)));
        }
        let unknown = |what: &str, name: &str, known: &mut dyn Iterator<Item = &str>| {
            let hint = nearest(name, known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            wrong(format!("there is no {what} `{name}`{hint}"))
        };
        let op = ops.find(&self.op).ok_or_else(|| unknown("op", &self.op, &mut ops.names()))?;
        let signature = ops.get(op).signature();
        if signature.calls_python() {
            return Err(wrong(format!("`{}`: Python functions run in manifests, not in a pool", self.op)));
        }
        let find = |name: &String| {
            let at = artifacts.iter().position(|known| known == name).map(ArtifactId::new);
            at.ok_or_else(|| unknown("artifact", name, &mut artifacts.iter().map(String::as_str)))
        };
        let named = self.artifacts.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        match (signature.artifacts, named.len()) {
            (Artifacts::None, 1..) => return Err(wrong(format!("`{}` takes no artifact", self.op))),
            (Artifacts::One | Artifacts::OneAndNamed, 0) => {
                return Err(wrong(format!("`{}` needs an artifact", self.op)));
            }
            (Artifacts::One, 2..) => return Err(wrong(format!("`{}` takes one artifact only", self.op))),
            _ => {}
        }
        if signature.params.is_some() || !signature.beside.is_empty() {
            for (name, json) in &self.params {
                if signature.spec(name).is_none() && signature.params.is_some() {
                    let mut known =
                        signature.beside.iter().chain(signature.params.unwrap_or_default()).map(|s| s.name);
                    let hint = nearest(name, &mut known)
                        .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                    return Err(wrong(format!("`{}` takes no `{name}`{hint}", self.op)));
                }
                let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
                kind_of(signature, name).check(&value).map_err(|expected| {
                    wrong(format!("`{}`: `{name}` must be {expected}, not {json}", self.op))
                })?;
            }
            for spec in signature.required() {
                if !self.params.iter().any(|(name, _)| name == spec.name) {
                    let expected = spec.kind.expected();
                    return Err(wrong(format!("`{}` needs `{}`: {expected}", self.op, spec.name)));
                }
            }
        }
        let shape = Shape {
            op,
            artifacts: named,
            reads: self.reads,
            // Each of those is run: what it does to the machine is all there is to it.
            cache: self.cache && !signature.effect,
            timeout: self.timeout,
            attempts: self.attempts,
            backoff: self.backoff,
            memory: self.memory,
        };
        Ok(Checked { shape, params: self.params, salt: self.salt, priority: self.priority })
    }
}

/// What many nodes have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    pub op: OpId,
    pub artifacts: Vec<ArtifactId>,
    pub reads: Reads,
    pub cache: bool,
    pub timeout: Option<Duration>,
    pub attempts: u32,
    pub backoff: Duration,
    pub memory: Option<u64>,
}

/// A node that was found to be in order.
pub(super) struct Checked {
    pub shape: Shape,
    /// JSON by name, sorted.
    pub params: Vec<(String, String)>,
    pub salt: Option<String>,
    pub priority: i32,
}

/// A node on its way to the engine.
pub(crate) struct Submission {
    pub shape: Shape,
    pub params: Vec<(String, String)>,
    pub salt: Option<String>,
    pub priority: i32,
    pub slot: Arc<Slot>,
}

/// What the engine is asked for.
pub(crate) enum Request {
    Submit(Submission),
    /// The node of this slot is not wanted any more.
    Cancel(Arc<Slot>),
    /// Nothing more comes.
    Close,
}
