//! The result of a node that was submitted, which may not be there yet.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forkyard_shared::blob;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::spin;
use forkyard_shared::value::Kind;
use parking_lot::{Condvar, Mutex};
use serde::de::DeserializeOwned;

use super::error::{TaskError, ValueError};
use super::handle::Shared;
use super::node::Request;

/// Where the engine puts a node's answer.
pub(crate) struct Slot {
    answer: OnceLock<Answer>,
    /// How many threads sleep until it is there, or are about to.
    sleepers: AtomicU32,
    lock: Mutex<()>,
    answered: Condvar,
    cancelled: AtomicBool,
    /// The engine's own: the node's number + 1 while it has one.
    node: AtomicU32,
}

/// What became of a node.
pub(crate) type Answer = Result<Done, TaskError>;

/// What a node returned.
pub(crate) struct Done {
    pub kind: Kind,
    pub body: Body,
    /// What it wrote to the state: JSON text by key, or nothing where it removed one.
    pub writes: Vec<(String, Option<Vec<u8>>)>,
}

/// Where the bytes are.
pub(crate) enum Body {
    Here(Vec<u8>),
    /// In the store's files.
    Blob {
        dir: Arc<PathBuf>,
        digest: Digest,
    },
}

impl Slot {
    pub fn new() -> Slot {
        Slot {
            answer: OnceLock::new(),
            sleepers: AtomicU32::new(0),
            lock: Mutex::new(()),
            answered: Condvar::new(),
            cancelled: AtomicBool::new(false),
            node: AtomicU32::new(0),
        }
    }

    /// Engine: the node has this number from now on.
    pub fn is_node(&self, node: NodeId) {
        self.node.store(node.0 + 1, Relaxed);
    }

    /// Engine: its number, if it has one.
    pub fn node(&self) -> Option<NodeId> {
        self.node.load(Relaxed).checked_sub(1).map(NodeId)
    }

    /// Whether somebody asked for its end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Engine: here is the answer, for good.
    pub fn settle(&self, answer: Answer) {
        self.node.store(0, Relaxed);
        self.answer.set(answer).unwrap_or_else(|_| panic!("BUG: a node with two answers"));
        // Either we see the sleeper, or it sees the answer before it sleeps.
        fence(SeqCst);
        if self.sleepers.load(Relaxed) > 0 {
            drop(self.lock.lock());
            self.answered.notify_all();
        }
    }

    /// Waits for what somebody else makes of it.
    fn wait(&self, until: Option<Instant>, spin: Duration) {
        let left = until.map_or(spin, |until| until.saturating_duration_since(Instant::now()).min(spin));
        if spin::look(left, || self.answer.get()).is_none() {
            self.sleep(until);
        }
    }

    fn sleep(&self, until: Option<Instant>) {
        self.sleepers.fetch_add(1, Relaxed);
        fence(SeqCst);
        let mut lock = self.lock.lock();
        let mut late = false;
        while self.answer.get().is_none() && !late {
            match until {
                None => self.answered.wait(&mut lock),
                Some(until) => late = self.answered.wait_until(&mut lock, until).timed_out(),
            }
        }
        drop(lock);
        self.sleepers.fetch_sub(1, Relaxed);
    }
}

/// A claim to the result of a node. Dropped, the node goes on: its result may be stored.
///
/// All of this may be called from any thread, and as often as one likes: the answer stays.
pub struct Ticket {
    pub(super) slot: Arc<Slot>,
    pub(super) shared: Arc<Shared>,
}

impl Ticket {
    /// Waits for the node's result.
    ///
    /// # Errors
    /// Why there is none.
    pub fn wait(&self) -> Result<Value, TaskError> {
        self.wait_until(None);
        self.try_get().expect("BUG: a wait without an answer")
    }

    /// The same, for at most so long; `None`: the node is still under way.
    ///
    /// # Errors
    /// As [`Ticket::wait`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Value>, TaskError> {
        self.wait_until(Some(Instant::now() + limit));
        self.try_get().transpose()
    }

    fn wait_until(&self, until: Option<Instant>) {
        if self.slot.answer.get().is_none() {
            self.shared.drive_until(until, || self.slot.answer.get().is_some());
            self.slot.wait(until, self.shared.spin);
        }
    }

    /// The answer, if it is there.
    pub fn try_get(&self) -> Option<Result<Value, TaskError>> {
        let answer = self.slot.answer.get()?;
        Some(match answer {
            Ok(_) => Ok(Value(self.slot.clone())),
            Err(error) => Err(error.clone()),
        })
    }

    /// Nobody wants the result any more: a node that waits does not run, and the worker of one that runs is killed.
    /// The answer is then [`TaskError::Cancelled`], unless there is one already.
    pub fn cancel(&self) {
        if !self.slot.cancelled.swap(true, Relaxed) && self.slot.answer.get().is_none() {
            self.shared.send(Request::Cancel(self.slot.clone()));
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let state = match self.slot.answer.get() {
            None => "under way",
            Some(Ok(_)) => "done",
            Some(Err(_)) => "failed",
        };
        write!(f, "Ticket({state})")
    }
}

/// What a node returned. Copies share it.
#[derive(Clone)]
pub struct Value(Arc<Slot>);

impl Value {
    fn done(&self) -> &Done {
        match self.0.answer.get() {
            Some(Ok(done)) => done,
            _ => unreachable!("BUG: a value of a node that has none"),
        }
    }

    /// Its bytes: JSON text, text, an array as `.npy`, or whatever the op returned.
    ///
    /// # Errors
    /// A result of more than 32 KiB is read from the pool's store, which may fail.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>, ValueError> {
        match &self.done().body {
            Body::Here(bytes) => Ok(bytes.into()),
            Body::Blob { dir, digest } => {
                let read = blob::read(dir, *digest).map_err(|error| ValueError::Read(error.to_string()))?;
                Ok(read.into())
            }
        }
    }

    /// What it is, if it is JSON and a `T`.
    ///
    /// # Errors
    /// When it is not, and as [`Value::bytes`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        if self.done().kind != Kind::Json {
            return Err(ValueError::Type("the result is no JSON; `bytes` gives it as it is".into()));
        }
        let parsed = serde_json::from_slice(&self.bytes()?);
        parsed.map_err(|error| ValueError::Type(format!("the result is other JSON: {error}")))
    }

    /// What the op wrote to the state: JSON text by key, in the order of keys; nothing where it removed one. In a pool
    /// that is all that happens with it.
    pub fn written(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.done().writes.iter().map(|(key, json)| (key.as_str(), json.as_deref()))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.done().body {
            Body::Here(bytes) => write!(f, "Value({})", String::from_utf8_lossy(bytes)),
            Body::Blob { digest, .. } => write!(f, "Value({digest})"),
        }
    }
}
