//! Nodes that other threads submit while the run goes on, and their answers.
//!
//! What many of them have in common, their *shape*, is a plan of one node. It is needed until the end of the process;
//! a node beside it is a number, its parameters and the slot for its answer. Once that is given the number is free for
//! another node, so that a pool holds what is under way and no more. Numbers are set free only between two turns, and
//! only when no worker has the node in its hands.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use forkyard_shared::blob;
use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::Writes;

use super::core::Engine;
use super::evaluate::Resolved;
use super::results::At;
use crate::embed::{Answer, Body, Done, Request, Shape, Shared, Slot, Submission, TaskError};
use crate::graph::GraphBuilder;
use crate::key::ResultId;
use crate::manifest::Settings;
use crate::names::Names;
use crate::plan::{Arg, Detail, Plan, Retry};
use crate::queue::Taken;
use crate::run::{Ending, RunError};
use crate::schedule::State;
use crate::store::{Layout, Outcome, Place};

/// Submissions taken in one turn: messages are not kept waiting for longer.
const SUBMISSIONS_A_TURN: usize = 1024;

/// What is under way of what was submitted.
pub(crate) struct Submissions {
    shared: Arc<Shared>,
    /// Whether results are kept, and looked up.
    keeps: bool,
    /// Where large ones are then.
    blobs: Arc<PathBuf>,
    taken: Taken<Request>,
    /// By shape, its number among the nodes' plans.
    shapes: HashMap<Shape, u32>,
    /// The last one: mostly the next one's.
    shape: Option<(Shape, u32)>,
    /// By node.
    places: Vec<Pending>,
    free: Vec<NodeId>,
    /// Nodes that are settled and not answered, and why if they have no result.
    settled: Vec<(NodeId, Option<TaskError>)>,
    /// Nodes that are answered, while a worker still has them.
    held: Vec<NodeId>,
    /// How many were answered.
    answered: u64,
    /// Why the pool ends.
    why: String,
}

/// What is known of a node beside what the engine knows of all.
#[derive(Default)]
struct Pending {
    slot: Option<Arc<Slot>>,
    /// What it says.
    said: Option<Resolved>,
    result: Option<(ResultId, Option<Vec<u8>>, At)>,
    writes: Writes,
}

impl Submissions {
    /// Those of a run that keeps its large results in `blobs`, if it keeps any.
    pub fn new(shared: Arc<Shared>, keeps: bool, blobs: PathBuf) -> Submissions {
        Submissions {
            shared,
            keeps,
            blobs: Arc::new(blobs),
            taken: Taken::default(),
            shapes: HashMap::new(),
            shape: None,
            places: Vec::new(),
            free: Vec::new(),
            settled: Vec::new(),
            held: Vec::new(),
            answered: 0,
            why: "a bug in forkyard: the engine's thread panicked".into(),
        }
    }

    /// What a node says beside its shape.
    pub(super) fn said(&self, node: NodeId) -> Option<&Resolved> {
        self.places[node.index()].said.as_ref()
    }

    pub(super) fn said_mut(&mut self, node: NodeId) -> &mut Option<Resolved> {
        &mut self.places[node.index()].said
    }

    /// Whether there is something to do without anything having happened.
    fn has_any(&self) -> bool {
        !self.taken.is_empty() || self.shared.queue.has_any()
    }
}

impl Drop for Submissions {
    /// Whoever still waits is told that nothing more comes.
    fn drop(&mut self) {
        self.shared.end(&self.why);
        let tell = |slot: &Slot| slot.settle(Err(TaskError::PoolEnded(self.why.clone())));
        let mut left = 0;
        for slot in self.places.iter_mut().filter_map(|place| place.slot.take()) {
            tell(&slot);
            left += 1;
        }
        self.shared.leave(left);
        // Those that were counted before the end are on their way.
        while !self.shared.is_over() {
            let mut submitted = 0;
            self.shared.queue.drain(&mut self.taken, usize::MAX, |request| {
                if let Request::Submit(submission) = request {
                    tell(&submission.slot);
                    submitted += 1;
                }
            });
            self.shared.leave(submitted);
            std::thread::yield_now();
        }
    }
}

impl Engine<'_> {
    /// Whether nodes may still be submitted, or have been and are not taken.
    pub(super) fn awaits_submissions(&self) -> bool {
        self.state.submissions.as_ref().is_some_and(|submissions| !submissions.shared.is_over())
    }

    /// Whether there are submissions to take.
    pub(super) fn has_submissions(&self) -> bool {
        self.state.submissions.as_ref().is_some_and(Submissions::has_any)
    }

    /// How many submitted nodes were answered.
    pub fn answered(&self) -> u64 {
        self.state.submissions.as_ref().map_or(0, |submissions| submissions.answered)
    }

    /// Whether a node was submitted, and its answer is wanted.
    pub(super) fn is_submitted(&self, node: NodeId) -> bool {
        self.state.submissions.is_some() && self.nodes.is_submitted(node)
    }

    /// Whether nobody wants to know the node's key.
    pub(super) fn needs_no_key(&self, node: NodeId) -> bool {
        self.state.submissions.as_ref().is_some_and(|submissions| !submissions.keeps)
            && self.nodes.is_submitted(node)
    }

    /// Takes what was submitted since the last turn, as much as a turn takes.
    pub(super) fn take_submitted(&mut self) -> Result<(), RunError> {
        if !self.has_submissions() {
            return Ok(());
        }
        let Some(submissions) = &mut self.state.submissions else { return Ok(()) };
        let (mut new, mut cancelled) = (Vec::new(), Vec::new());
        submissions.shared.queue.drain(&mut submissions.taken, SUBMISSIONS_A_TURN, |request| match request {
            Request::Submit(submission) => new.push(submission),
            Request::Cancel(slot) => cancelled.push(slot),
            Request::Close => {}
        });
        let mut entered = Vec::with_capacity(new.len());
        for submission in new {
            entered.push(self.take_in(submission)?);
        }
        // The last one that enters comes out first.
        entered.into_iter().rev().for_each(|node| self.scheduler.enter(node));
        for slot in cancelled {
            self.cancel_submitted(&slot);
        }
        Ok(())
    }

    fn take_in(&mut self, submission: Submission) -> Result<NodeId, RunError> {
        let Submission { shape, params, salt, priority, slot } = submission;
        let shape = self.shape(shape)?;
        let submissions = self.state.submissions.as_mut().expect("BUG: a submission to nobody");
        let place = submissions.free.pop();
        let node = self.nodes.add_submitted(place, shape);
        let entered = self.scheduler.add_submitted(place, priority);
        assert_eq!(node, entered, "BUG: two numbers for one node");
        if place.is_none() {
            self.keys.add();
            submissions.places.push(Pending::default());
        }
        slot.is_node(node);
        let params = params.into_iter().map(|(name, json)| (name, Arg::Json(json))).collect();
        let said = Some(Resolved { params, salt, state: Vec::new() });
        submissions.places[node.index()] = Pending { slot: Some(slot), said, ..Pending::default() };
        Ok(node)
    }

    /// The number of a shape.
    fn shape(&mut self, shape: Shape) -> Result<u32, RunError> {
        let submissions = self.state.submissions.as_mut().expect("BUG: a submission to nobody");
        if let Some((last, number)) = &submissions.shape
            && *last == shape
        {
            return Ok(*number);
        }
        if let Some(known) = submissions.shapes.get(&shape) {
            submissions.shape = Some((shape, *known));
            return Ok(*known);
        }
        if submissions.keeps {
            self.keys
                .know_op(shape.op)
                .map_err(|error| RunError::Internal(format!("read our executable: {error}")))?;
        }
        let number = self.nodes.add_shape(plan_of(
            &shape,
            self.nodes.plan,
            self.ops.name(shape.op),
            submissions.keeps,
        ));
        submissions.shapes.insert(shape, number);
        Ok(number)
    }

    fn cancel_submitted(&mut self, slot: &Slot) {
        // It may be answered, or still in a queue behind this word: then it is cancelled when it is taken.
        let Some(node) = slot.node() else { return };
        match self.scheduler.state(node) {
            State::Waiting | State::Ready => self.release_waiting(node),
            State::Taken => self.stop_node(node),
            State::Open | State::Unwanted | State::Settled(_) => return,
        }
        self.scheduler.cancel(node);
        self.scheduler.clear_queues();
        self.tell(node, Outcome::Cancelled, None, None, None);
        self.after(node, Outcome::Cancelled, None);
    }

    /// A node that was submitted is settled: it is answered at the end of the turn.
    pub(super) fn note_settled(&mut self, node: NodeId, outcome: Outcome, error: Option<&str>) {
        if !self.is_submitted(node) {
            return;
        }
        let crashed = self.state.attempts.crashes(node) >= self.nodes.plan.settings.max_crashes;
        let changed = matches!(self.state.ending, Ending::ArtifactChanged(_));
        let Some(submissions) = &mut self.state.submissions else { return };
        let why = || error.unwrap_or_default().to_string();
        let failure = match outcome {
            Outcome::Ran | Outcome::Cached => None,
            Outcome::Cancelled => {
                let slot = submissions.places[node.index()].slot.as_ref();
                if !slot.is_some_and(|slot| slot.is_cancelled()) {
                    // The pool ends: all that are left are answered together.
                    return;
                }
                Some(TaskError::Cancelled)
            }
            Outcome::TimedOut => Some(TaskError::TimedOut(why())),
            _ if changed => Some(TaskError::ArtifactChanged(why())),
            _ if crashed => Some(TaskError::Crashed(why())),
            _ => Some(TaskError::Failed(why())),
        };
        submissions.settled.push((node, failure));
    }

    /// Keeps the result of a node for its answer.
    pub(super) fn keep_answer(&mut self, node: NodeId, id: ResultId, bytes: Option<Vec<u8>>, at: At) {
        if let Some(submissions) = &mut self.state.submissions {
            submissions.places[node.index()].result = Some((id, bytes, at));
        }
    }

    /// Keeps what a node wrote to the state: it belongs to its answer, and nobody else sees it.
    pub(super) fn keep_writes(&mut self, node: NodeId, writes: &Writes) {
        if let Some(submissions) = &mut self.state.submissions
            && !writes.is_empty()
        {
            submissions.places[node.index()].writes = writes.clone();
        }
    }

    /// Answers those that are settled, and sets their numbers free.
    pub(super) fn answer_settled(&mut self) {
        let Some(submissions) = &mut self.state.submissions else { return };
        if submissions.settled.is_empty() && submissions.held.is_empty() {
            return;
        }
        // Who is answered without a store has the bytes; several may have the same.
        let mut unneeded = Vec::new();
        let mut settled = std::mem::take(&mut submissions.settled);
        for (node, failure) in &mut settled {
            let answer = match failure.take() {
                None => self.value_of(*node, &mut unneeded),
                Some(failure) => Err(failure),
            };
            self.state.suspects.remove(node);
            self.state.retries.remove(node);
            let Some(submissions) = &mut self.state.submissions else { return };
            let Pending { slot, .. } = std::mem::take(&mut submissions.places[node.index()]);
            match answer {
                Err(TaskError::Cancelled) => submissions.held.push(*node),
                _ => submissions.free.push(*node),
            }
            submissions.answered += 1;
            // First, so that who has an answer finds room for another node.
            submissions.shared.leave(1);
            slot.expect("BUG: a node that is answered twice").settle(answer);
        }
        for path in unneeded {
            fs::remove_file(path).ok();
        }
        let Some(submissions) = &mut self.state.submissions else { return };
        settled.clear();
        submissions.settled = settled;
        let places = &self.state.places;
        let is_held = |node: &NodeId| places.iter().any(|place| place.holds(*node));
        submissions.free.extend(submissions.held.extract_if(.., |node| !is_held(node)));
        if let Ending::ArtifactChanged(_) = self.state.ending {
            // Whatever is read of it from now on, nobody knows what it is.
            self.stop();
        }
    }

    /// What a node has returned. A file that has been read and is not needed any more goes to `unneeded`.
    fn value_of(&mut self, node: NodeId, unneeded: &mut Vec<PathBuf>) -> Answer {
        let Some(submissions) = &mut self.state.submissions else { unreachable!("BUG: an answer to nobody") };
        let keeps = submissions.keeps;
        let Pending { result, writes, .. } = &mut submissions.places[node.index()];
        let (ResultId { kind, digest }, bytes, at) = result.take().expect("BUG: a result that nobody kept");
        let writes = std::mem::take(writes);
        let lost = |error: &dyn std::fmt::Display| {
            TaskError::Failed(format!("its result is lost: {error}; submit it again"))
        };
        let record = match at {
            At::Unknown => None,
            At::Key => self.reader.lookup(self.keys.of(node)),
            At::Record(record) => Some(*record),
        };
        let body = match (bytes, record) {
            (Some(bytes), _) => Body::Here(bytes),
            (None, Some(record)) if record.place != Place::File => {
                Body::Here(self.reader.read(&record).map_err(|error| lost(&error))?)
            }
            (None, _) if self.layout != Layout::Sqlite => {
                Body::Blob { dir: submissions.blobs.clone(), digest }
            }
            // Here files are only on their way.
            (None, _) => {
                let blobs = self.dir.worker_blobs_dir(self.layout);
                let bytes = blob::read(&blobs, digest).map_err(|error| lost(&error))?;
                if !keeps {
                    unneeded.push(blob::blob_path(&blobs, digest));
                }
                Body::Here(bytes)
            }
        };
        Ok(Done { kind, body, writes })
    }

    /// The run is over: whoever still waits is told why.
    pub fn end_submissions(&mut self, error: Option<&RunError>) {
        self.answer_settled();
        let why = match (error, &self.state.ending) {
            (Some(error), _) => error.to_string(),
            (None, Ending::ArtifactChanged(artifact)) => self.changed(*artifact),
            (None, Ending::StoreFull(why)) => format!("the store takes no more results: {why}"),
            (None, Ending::StoreLoses(why)) => format!("the store does not keep what is put into it: {why}"),
            (None, Ending::Complete | Ending::Interrupted(_)) => "it was closed".into(),
        };
        if let Some(mut submissions) = self.state.submissions.take() {
            submissions.why = why;
        }
    }
}

/// A plan of one node of this shape.
fn plan_of(shape: &Shape, of: &Plan, op: &str, keeps: bool) -> Plan {
    let mut names = Names::default();
    names.insert(op).expect("the only name");
    let mut graph = GraphBuilder::new();
    graph.push([]);
    let retry = Retry { attempts: shape.attempts, backoff: shape.backoff, ..Retry::default() };
    let detail = Detail {
        params: Vec::new(),
        artifacts: shape.artifacts.clone(),
        artifact_results: Vec::new(),
        timeout: shape.timeout,
        retry,
        cache: shape.cache && keeps,
        salt: None,
        priority: 0,
        estimate: None,
        memory: shape.memory,
        memory_limit: None,
        dir: of.dir.clone(),
        state: shape.reads.clone(),
        reads: Vec::new(),
        flow: None,
        call: None,
        program: None,
    };
    Plan {
        path: PathBuf::new(),
        dir: of.dir.clone(),
        settings: Settings::default(),
        artifacts: Vec::new(),
        names,
        ops: vec![shape.op],
        graph: graph.build().expect("no node needs itself"),
        detail_of: vec![0],
        details: vec![detail],
        vars: BTreeMap::new(),
        uses_history: false,
        groups: Vec::new(),
        python: None,
        secrets: Vec::new(),
    }
}
