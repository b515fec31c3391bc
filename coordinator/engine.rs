//! The event loop: looks ready nodes up, hands those that must run to workers in batches, and takes what
//! comes back. The only place where the state of a run changes.
//!
//! - Look up what has become ready; what is stored is done without a worker.
//! - Fill the workers, most urgent node first.
//! - Hand the results of this turn to the store's thread.
//! - Wait for the next message or timer, and act on it.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use forkyard_shared::blob::blob_path;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{ArtifactId, NodeId, WorkerId};
use forkyard_shared::protocol::{
    self, Cause, Completion, End, Failure, FromWorker, FromZygote, Param, ToCoordinator, ToWorker,
};
use forkyard_shared::value::{Body, Value};
use forkyard_worker::Ops;
use nix::sys::signal::Signal;

use crate::cost::{BATCH_MAX_TASKS, Costs};
use crate::key::{Keys, ResultId, working_dir};
use crate::manifest::OnFailure;
use crate::places::{self, Life, Place};
use crate::plan::{Arg, Plan, Retry};
use crate::pool::{Event, Pool};
use crate::report::{Finished, Ran, Report, Status};
use crate::run::{Ending, Limits, RunError};
use crate::schedule::{Scheduler, State, Trouble, Verdict};
use crate::store::{
    JournalEntry, Layout, NewResult, NewValue, Outcome, Place as Stored, Reader, Record, Writer,
};
use crate::timers::{Timer, Timers};

/// Fresh nodes looked up in one turn: messages are not kept waiting for longer.
const LOOK_UPS_A_TURN: usize = 4096;

/// How long a worker is idle before it gets what waits behind another.
const SHARE_AFTER: Duration = Duration::from_millis(2);

/// So many workers may die one after the other in one place without finishing anything.
const BARREN_MAX: u32 = 10;

/// How often memory is sampled while nothing else asks for a tick.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A finished node's result, for the nodes that read it.
struct Held {
    id: ResultId,
    len: u64,
    /// Its bytes if they are at hand; else they are in the store.
    bytes: Option<Vec<u8>>,
    record: Option<Record>,
    /// Nodes that may still read it.
    readers: usize,
}

/// A run in progress.
pub(crate) struct Engine<'a> {
    pub plan: &'a Plan,
    pub ops: &'a Ops,
    pub layout: &'a Layout,
    pub limits: Limits,
    pub scheduler: Scheduler<'a>,
    pub keys: Keys<'a>,
    pub costs: Costs,
    pub reader: Reader,
    pub writer: Writer,
    pub pool: &'a mut Pool,
    pub report: &'a mut Report,
    /// Maps the artifacts, once, before the first worker is needed.
    pub attach: &'a mut dyn FnMut(&Pool, &mut Report) -> Result<(), RunError>,
    pub state: Progressing,
}

/// What changes while a run goes on, beside the scheduler.
pub(crate) struct Progressing {
    attached: bool,
    places: Vec<Place>,
    next_batch: u32,
    timers: Timers,
    sharing: bool,
    /// Nodes in workers' hands by key, and the identical ones that wait for them.
    in_flight: HashMap<Digest, Vec<NodeId>>,
    results: HashMap<NodeId, Held>,
    /// How many nodes read each node's result.
    readers: HashMap<NodeId, usize>,
    /// Set when nothing new is to be started.
    stopping: bool,
    interrupts: u32,
    pub ending: Ending,
    pub peak_private_bytes: u64,
}

impl Progressing {
    pub fn new(plan: &Plan, workers: usize) -> Progressing {
        let mut readers = HashMap::new();
        for node in (0..plan.len()).map(NodeId::new) {
            for producer in plan.results_of(node) {
                *readers.entry(producer).or_insert(0) += 1;
            }
        }
        Progressing {
            attached: false,
            places: (0..workers).map(|_| Place::default()).collect(),
            next_batch: 0,
            timers: Timers::default(),
            sharing: false,
            in_flight: HashMap::new(),
            results: HashMap::new(),
            readers,
            stopping: false,
            interrupts: 0,
            ending: Ending::Complete,
            peak_private_bytes: 0,
        }
    }
}

impl Engine<'_> {
    /// Runs until every node is settled, or until the run has to stop. What is in hand is durable, or has
    /// failed to become so, when this returns.
    pub fn run(&mut self) -> Result<(), RunError> {
        let result = self.turns();
        self.writer.flush();
        self.take_discarded();
        if self.state.stopping || result.is_err() {
            for node in self.scheduler.cancel_rest() {
                self.tell(node, Outcome::Cancelled, None, None, None);
            }
        }
        self.sample_memory();
        self.writer.flush();
        result?;
        self.check_writer()
    }

    fn turns(&mut self) -> Result<(), RunError> {
        let tick = self.report.interval().unwrap_or(SAMPLE_EVERY).min(SAMPLE_EVERY);
        self.state.timers.set(Instant::now() + tick, Timer::Tick);
        loop {
            self.look_up()?;
            self.fill_workers()?;
            self.writer.hand_over();
            let settled = self.scheduler.is_drained() || self.state.stopping;
            if settled && self.scheduler.taken() == 0 {
                // The last group may yet fail, or bring down what named a changed artifact.
                self.writer.flush();
                self.check_writer()?;
                self.take_discarded();
                return Ok(());
            }
            self.report.flush();
            let now = Instant::now();
            let more_to_look_up = self.scheduler.has_fresh() && !self.state.stopping;
            let limit = if more_to_look_up { Some(Duration::ZERO) } else { self.state.timers.wait(now) };
            match self.pool.next(limit).map_err(RunError::Internal)? {
                Some(Event::Message(message)) => self.on_message(message)?,
                Some(Event::Signal(signal)) => self.on_signal(signal),
                Some(Event::ZygoteGone) => return self.on_zygote_gone(),
                None => {}
            }
            self.on_time(Instant::now(), tick);
        }
    }

    // ---- looking up ----

    fn look_up(&mut self) -> Result<(), RunError> {
        for _ in 0..LOOK_UPS_A_TURN {
            if self.state.stopping {
                return Ok(());
            }
            let Some(node) = self.scheduler.next_fresh() else { return Ok(()) };
            match self.make_key(node) {
                Err(message) => {
                    self.scheduler.hold(node);
                    self.give_up(node, Outcome::Failed, message, None, Vec::new());
                }
                Ok(key) => match self.stored(node, key) {
                    Some(record) => self.on_stored(node, record),
                    None => self.scheduler.must_run(node),
                },
            }
        }
        Ok(())
    }

    fn make_key(&mut self, node: NodeId) -> Result<Digest, String> {
        let results = &self.state.results;
        self.keys.make(node, |producer| results.get(&producer).map(|result| result.id))
    }

    fn is_cached(&self, node: NodeId) -> bool {
        self.plan.detail(node).is_none_or(|detail| detail.cache)
    }

    fn stored(&self, node: NodeId, key: Digest) -> Option<Record> {
        let wanted_anew = self.limits.refresh.contains(&node) || !self.is_cached(node);
        if wanted_anew { None } else { self.reader.lookup(key) }
    }

    fn on_stored(&mut self, node: NodeId, record: Record) {
        let (digest, bytes) = (record.digest, record.len);
        let (kind, len) = (record.kind, record.len);
        self.keep(node, ResultId { kind, digest }, len, None, Some(record));
        self.scheduler.done(node, Outcome::Cached);
        self.tell(node, Outcome::Cached, None, Some((digest, bytes)), None);
    }

    /// Keeps a result for the nodes that read it.
    fn keep(&mut self, node: NodeId, id: ResultId, len: u64, bytes: Option<Vec<u8>>, record: Option<Record>) {
        if let Some(readers) = self.state.readers.get(&node) {
            self.state.results.insert(node, Held { id, len, bytes, record, readers: *readers });
        }
    }

    /// `node` will not read results any more: those without further readers are forgotten.
    fn forget_read(&mut self, node: NodeId) {
        for producer in self.plan.results_of(node) {
            if let Some(result) = self.state.results.get_mut(&producer) {
                result.readers = result.readers.saturating_sub(1);
                if result.readers == 0 {
                    result.bytes = None;
                }
            }
        }
    }

    // ---- dispatch ----

    fn fill_workers(&mut self) -> Result<(), RunError> {
        while !self.state.stopping && self.scheduler.runnable() > 0 {
            let Some(worker) = self.next_place()? else { break };
            if !self.send_batch(worker)? {
                break;
            }
        }
        if !self.state.sharing
            && !self.state.stopping
            && self.scheduler.runnable() == 0
            && self.has_idle_and_behind()
        {
            self.state.sharing = true;
            self.state.timers.set(Instant::now() + SHARE_AFTER, Timer::Share);
        }
        Ok(())
    }

    /// A place that may be given a batch: an idle worker, a new one, or one whose next batch can wait
    /// behind a short one.
    fn next_place(&mut self) -> Result<Option<WorkerId>, RunError> {
        let idle = places::ids(&self.state.places).find(|id| {
            let place = &self.state.places[id.index()];
            place.life != Life::Empty && place.is_idle() && place.killing.is_none()
        });
        if idle.is_some() {
            return Ok(idle);
        }
        let empty =
            places::ids(&self.state.places).find(|id| self.state.places[id.index()].life == Life::Empty);
        if let Some(worker) = empty {
            self.fork(worker)?;
            return Ok(Some(worker));
        }
        let Some(next) = self.scheduler.peek() else { return Ok(None) };
        if !self.costs.may_queue(self.plan.ops[next.index()]) {
            return Ok(None);
        }
        let short = places::ids(&self.state.places).find(|id| {
            let place = &self.state.places[id.index()];
            place.killing.is_none()
                && place.free_slot().is_some()
                && place.in_use().iter().all(|(_, sent)| {
                    sent.nodes.iter().all(|n| self.costs.may_queue(self.plan.ops[n.index()]))
                })
        });
        Ok(short)
    }

    fn fork(&mut self, worker: WorkerId) -> Result<(), RunError> {
        if !self.state.attached {
            (self.attach)(self.pool, self.report)?;
            self.state.attached = true;
        }
        self.pool.fork(worker).map_err(|error| RunError::Pool(format!("start a worker: {error}")))?;
        self.state.places[worker.index()].life = Life::Asked;
        Ok(())
    }

    fn send_batch(&mut self, worker: WorkerId) -> Result<bool, RunError> {
        let nodes = self.collect_batch();
        if nodes.is_empty() {
            return Ok(false);
        }
        let mut tasks = Vec::with_capacity(nodes.len());
        for node in &nodes {
            match self.task(*node) {
                Ok(task) => tasks.push(task),
                Err(()) => {
                    // A result that it reads is gone and is being computed anew; the others go on.
                    self.scheduler_release(&nodes, *node);
                    return Ok(true);
                }
            }
        }
        let now = Instant::now();
        let number = self.state.next_batch;
        self.state.next_batch = number.wrapping_add(1);
        let place = &mut self.state.places[worker.index()];
        let slot = place.free_slot().expect("BUG: a batch for a place without a free slot");
        if let Some(timeout) = nodes.iter().filter_map(|n| self.plan.detail(*n)?.timeout).min() {
            self.state.timers.set(now + timeout, Timer::Timeout(worker));
        }
        place.sent(slot, number, nodes);
        self.pool.send(worker, ToWorker { number, slot: slot as u8, tasks });
        Ok(true)
    }

    fn scheduler_release(&mut self, nodes: &[NodeId], except: NodeId) {
        for node in nodes.iter().filter(|node| **node != except) {
            self.drop_claim(*node);
            self.scheduler.release(*node);
        }
    }

    /// The most urgent nodes that fit one batch, with successors that need nothing outside it.
    fn collect_batch(&mut self) -> Vec<NodeId> {
        let workers = self.state.places.len();
        let (mut nodes, mut limit, mut at) = (Vec::new(), 1, 0);
        loop {
            if at == nodes.len() {
                let Some(node) = self.scheduler.peek() else { break };
                let fits = self.costs.batch(self.plan.ops[node.index()], self.scheduler.runnable(), workers);
                limit = if nodes.is_empty() { fits } else { limit.min(fits) };
                if nodes.len() >= limit {
                    break;
                }
                self.scheduler.take();
                if self.claim(node) {
                    nodes.push(node);
                }
                continue;
            }
            let mut chained = Vec::new();
            let (keys, reader, plan, costs) = (&mut self.keys, &self.reader, self.plan, &self.costs);
            let (limits, taken) = (&self.limits, nodes.len());
            self.scheduler.chain(nodes[at], |user| {
                let room = taken + chained.len()
                    < limit.max(costs.batch(plan.ops[user.index()], 1, workers)).min(BATCH_MAX_TASKS);
                if !room
                    || costs.batch(plan.ops[user.index()], 1, workers) <= taken + chained.len()
                    || !keys.is_known_early(user)
                {
                    return false;
                }
                // One that is stored is settled when it becomes ready.
                let Ok(key) = keys.make(user, |_| None) else { return false };
                let anew =
                    limits.refresh.contains(&user) || plan.detail(user).is_some_and(|detail| !detail.cache);
                let run = anew || reader.lookup(key).is_none();
                if run {
                    chained.push(user);
                }
                run
            });
            nodes.extend(chained);
            at += 1;
        }
        self.scheduler.end_chain();
        nodes
    }

    /// Notes that a node is on its way; false if an identical one is already, for which it now waits.
    fn claim(&mut self, node: NodeId) -> bool {
        if !self.is_cached(node) || self.is_effect(node) {
            return true;
        }
        match self.state.in_flight.entry(self.keys.of(node)) {
            std::collections::hash_map::Entry::Occupied(mut others) => {
                others.get_mut().push(node);
                false
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Vec::new());
                true
            }
        }
    }

    /// A node is no longer on its way; those that waited for it start anew.
    fn drop_claim(&mut self, node: NodeId) {
        for other in self.waiting_for(node) {
            self.scheduler.release(other);
        }
    }

    fn waiting_for(&mut self, node: NodeId) -> Vec<NodeId> {
        if !self.is_cached(node) || self.is_effect(node) {
            return Vec::new();
        }
        self.state.in_flight.remove(&self.keys.of(node)).unwrap_or_default()
    }

    /// No other node can have the key of a node that has its own id in it.
    fn is_effect(&self, node: NodeId) -> bool {
        self.ops.get(self.plan.ops[node.index()]).signature().effect
    }

    /// The message for a node. An error means that a result it reads has to be computed anew; the node then
    /// waits for that.
    fn task(&mut self, node: NodeId) -> Result<protocol::Task, ()> {
        let mut params = Vec::new();
        if let Some(detail) = self.plan.detail(node) {
            for (name, arg) in &detail.params {
                let param = match arg {
                    Arg::Json(text) => Param::Json(text.clone()),
                    Arg::Result(producer) => self.result_param(*producer, node)?,
                };
                params.push((name.clone(), param));
            }
            if self.ops.get(self.plan.ops[node.index()]).signature().runs_command() {
                let cwd = working_dir(detail).to_string_lossy().into_owned();
                let cwd = Param::Json(serde_json::Value::String(cwd).to_string());
                match params.binary_search_by(|(name, _)| name.as_str().cmp("cwd")) {
                    Ok(at) => params[at].1 = cwd,
                    Err(at) => params.insert(at, ("cwd".into(), cwd)),
                }
            }
        }
        let artifacts = self.plan.artifacts_of(node).to_vec();
        Ok(protocol::Task {
            node,
            op: self.plan.ops[node.index()],
            attempt: self.scheduler.attempt(node),
            params,
            artifacts,
        })
    }

    fn result_param(&mut self, producer: NodeId, reader: NodeId) -> Result<Param, ()> {
        let result =
            self.state.results.get_mut(&producer).expect("BUG: a node before the results that it reads");
        let ResultId { kind, digest } = result.id;
        if let Some(bytes) = &result.bytes {
            return Ok(Param::Inline(kind, bytes.clone()));
        }
        match &result.record {
            None => Ok(Param::Blob { kind, digest, len: result.len }),
            Some(record) if record.place == Stored::File => Ok(Param::Blob { kind, digest, len: result.len }),
            Some(record) => match self.reader.read(record) {
                Ok(bytes) => {
                    result.bytes = Some(bytes.clone());
                    Ok(Param::Inline(kind, bytes))
                }
                Err(error) => {
                    self.report.say(&format!("{error}; node {} runs again", self.plan.name(producer)));
                    self.scheduler.revive(producer, reader);
                    Err(())
                }
            },
        }
    }

    fn has_idle_and_behind(&self) -> bool {
        let places = || self.state.places.iter();
        let idle = places().any(|place| place.life != Life::Empty && place.is_idle());
        idle && places()
            .any(|place| place.in_use().iter().map(|(_, sent)| sent.nodes.len()).sum::<usize>() > 1)
    }

    /// Takes back what no worker has begun.
    fn take_back(&mut self) {
        for worker in places::ids(&self.state.places) {
            let batches: Vec<(usize, u32)> = self.state.places[worker.index()]
                .in_use()
                .iter()
                .map(|(slot, sent)| (*slot, sent.number))
                .collect();
            for (slot, number) in batches {
                let unclaimed = self.pool.pulse(worker).take_back(slot, number);
                self.return_nodes(worker, number, unclaimed.len());
            }
        }
    }

    fn return_nodes(&mut self, worker: WorkerId, batch: u32, count: usize) {
        if count > 0 {
            for node in self.state.places[worker.index()].shorten(batch, count) {
                self.drop_claim(node);
                self.scheduler.release(node);
            }
        }
    }

    // ---- what comes back ----

    fn on_message(&mut self, message: ToCoordinator) -> Result<(), RunError> {
        match message {
            ToCoordinator::Worker(message) => self.on_worker(message),
            ToCoordinator::Zygote(FromZygote::Forked(worker, pid)) => {
                self.state.places[worker.index()].life = Life::Runs(pid);
                self.pool.note_worker(pid);
                self.report.worker_started(worker, pid);
                Ok(())
            }
            ToCoordinator::Zygote(FromZygote::ForkFailed(worker, error)) => {
                self.on_fork_failed(worker, &error)
            }
            ToCoordinator::Zygote(FromZygote::Died { worker, pid, end }) => self.on_died(worker, pid, end),
            ToCoordinator::Zygote(FromZygote::Ready(_)) => Ok(()),
            ToCoordinator::Wake => {
                self.take_discarded();
                self.check_writer()
            }
        }
    }

    fn on_worker(&mut self, message: FromWorker) -> Result<(), RunError> {
        let FromWorker { worker, batch, done, returned } = message;
        // Before the completions: a node that is given back must be waiting when the one before it fails.
        self.return_nodes(worker, batch, usize::from(returned));
        for completion in done {
            if !self.state.places[worker.index()].ended(batch, completion.node) {
                return Err(RunError::Internal(format!(
                    "worker {} ended node {} out of turn",
                    worker.0, completion.node.0
                )));
            }
            self.state.places[worker.index()].barren = 0;
            self.on_completion(worker, completion);
        }
        Ok(())
    }

    fn on_completion(&mut self, worker: WorkerId, completion: Completion) {
        let Completion { node, started_ns, duration_ns, outcome, log } = completion;
        let ran = Ran { worker, started_ns, duration_ns };
        self.costs.learn(self.plan.ops[node.index()], duration_ns as f64 / 1e9);
        match outcome {
            Ok(value) => self.on_result(node, value, ran, log),
            Err(failure) => self.on_failure(node, failure, ran, log),
        }
    }

    fn on_result(&mut self, node: NodeId, value: Value, ran: Ran, log: Vec<u8>) {
        let (kind, digest, len) = (value.kind, value.digest, value.len());
        let (new, bytes) = match value.body {
            Body::Inline(bytes) => {
                let kept = self.state.readers.contains_key(&node).then(|| bytes.clone());
                (NewValue::Bytes(bytes), kept)
            }
            Body::File { name, len } => {
                if let Err(error) = self.adopt_blob(&name, digest) {
                    let failure =
                        Failure { message: format!("keep result {digest}: {error}"), cause: Cause::DiskFull };
                    return self.on_failure(node, failure, ran, log);
                }
                (NewValue::File { len }, None)
            }
        };
        let key = self.keys.of(node);
        self.keep(node, ResultId { kind, digest }, len, bytes, None);
        let held = self.waiting_for(node);
        let duration = Duration::from_nanos(ran.duration_ns);
        let artifacts = self.plan.artifacts_of(node).to_vec();
        self.writer.put(NewResult { node, key, kind, digest, value: new, duration, artifacts });
        self.scheduler.done(node, Outcome::Ran);
        self.tell(node, Outcome::Ran, Some((ran, log)), Some((digest, len)), None);
        for other in held {
            let bytes = self.state.results.get(&node).and_then(|result| result.bytes.clone());
            self.keep(other, ResultId { kind, digest }, len, bytes, None);
            self.scheduler.done(other, Outcome::Cached);
            self.tell(other, Outcome::Cached, None, Some((digest, len)), None);
        }
    }

    /// Gives a finished file its name. The store's thread syncs the directory before anything refers to it.
    fn adopt_blob(&self, name: &str, digest: Digest) -> io::Result<()> {
        let path = blob_path(&self.layout.blobs_dir(), digest);
        std::fs::create_dir_all(path.parent().expect("a blob lies in a directory"))?;
        std::fs::rename(self.layout.tmp_dir().join(name), path)
    }

    fn on_failure(&mut self, node: NodeId, failure: Failure, ran: Ran, log: Vec<u8>) {
        match failure.cause {
            Cause::Blob(digest) => {
                // A result that this node reads is damaged: the node that made it makes it again.
                let producer = self.plan.results_of(node).find(|producer| {
                    self.state.results.get(producer).is_some_and(|result| result.id.digest == digest)
                });
                if let Some(producer) = producer {
                    let moved = match self.layout.quarantine(digest) {
                        Ok(()) => "; it is in quarantine",
                        Err(_) => "",
                    };
                    self.report.say(&format!(
                        "{}{moved}; node {} runs again",
                        failure.message,
                        self.plan.name(producer)
                    ));
                    self.drop_claim(node);
                    self.scheduler.revive(producer, node);
                    return;
                }
            }
            Cause::DiskFull => {
                self.state.ending = Ending::StoreFull(failure.message.clone());
                self.stop();
            }
            Cause::Artifact(artifact) => {
                self.state.ending = Ending::ArtifactChanged(artifact);
                return self.give_up(node, Outcome::Failed, failure.message, Some(ran), log);
            }
            Cause::Task => {}
        }
        self.on_trouble(node, Trouble::Error, failure.message, Some(ran), log);
    }

    /// An attempt went wrong: the node is tried again, or fails.
    fn on_trouble(
        &mut self,
        node: NodeId,
        trouble: Trouble,
        message: String,
        ran: Option<Ran>,
        log: Vec<u8>,
    ) {
        let retry = self.plan.detail(node).map_or_else(Retry::default, |detail| detail.retry.clone());
        match self.scheduler.judge(node, trouble, &retry, self.plan.settings.max_crashes) {
            // Interrupted: there is no time for another attempt, nor has the node failed.
            Verdict::Again(_) if self.state.stopping => {
                self.drop_claim(node);
                self.scheduler.release(node);
            }
            Verdict::Again(delay) if delay.is_zero() => {
                self.drop_claim(node);
                self.scheduler.release(node);
            }
            Verdict::Again(delay) => self.state.timers.set(Instant::now() + delay, Timer::Retry(node)),
            Verdict::Fail => {
                let outcome = if trouble == Trouble::Timeout { Outcome::TimedOut } else { Outcome::Failed };
                self.give_up(node, outcome, message, ran, log);
            }
        }
    }

    fn give_up(&mut self, node: NodeId, outcome: Outcome, message: String, ran: Option<Ran>, log: Vec<u8>) {
        self.drop_claim(node);
        let blocked = self.scheduler.fail(node, outcome);
        self.tell(node, outcome, Some((ran.unwrap_or(NOT_RUN), log)), None, Some(&message));
        let why = format!("it needs {}, which did not succeed", self.plan.name(node));
        for user in blocked {
            self.tell(user, Outcome::Blocked, None, None, Some(&why));
        }
        let failures = self.scheduler.counts().failures();
        let stop = match self.limits.max_failures {
            Some(max) => failures > max,
            None => self.limits.on_failure == OnFailure::Stop,
        };
        if stop {
            self.stop();
        }
    }

    /// Starts nothing new.
    fn stop(&mut self) {
        if !self.state.stopping {
            self.state.stopping = true;
            self.take_back();
        }
    }

    fn on_fork_failed(&mut self, worker: WorkerId, error: &str) -> Result<(), RunError> {
        let nodes = self.state.places[worker.index()].abandon();
        self.state.places.truncate(worker.index().max(1));
        for node in nodes {
            self.drop_claim(node);
            self.scheduler.release(node);
        }
        if worker.index() == 0 {
            return Err(RunError::Pool(format!("the system refuses to start even one worker: {error}")));
        }
        self.report.say(&format!(
            "the system refuses worker {}: {error}; going on with {}",
            worker.0 + 1,
            worker.0
        ));
        Ok(())
    }

    fn on_died(&mut self, worker: WorkerId, pid: u32, end: End) -> Result<(), RunError> {
        let running = self.pool.pulse(worker).current().map(|current| current.node);
        let Some(place) = self.state.places.get_mut(worker.index()) else { return Ok(()) };
        let running = running.filter(|node| place.holds(*node));
        let killed_for = place.killing.take();
        let held = place.abandon();
        place.life = Life::Empty;
        place.barren += 1;
        if place.barren > BARREN_MAX && running.is_none() {
            return Err(RunError::Pool(format!(
                "worker {} cannot live: it {end} {} times without finishing anything",
                worker.0, place.barren
            )));
        }
        self.report.worker_lost(worker, pid, end, running.map(|node| self.plan.name(node)));
        // The rest of its batches first, so that what depends on the node that failed is waiting by then.
        for node in held.iter().filter(|node| Some(**node) != running) {
            self.drop_claim(*node);
            self.scheduler.release(*node);
        }
        let Some(node) = running else { return Ok(()) };
        match killed_for {
            Some(late) if late == node => {
                let timeout = self.plan.detail(node).and_then(|detail| detail.timeout).unwrap_or_default();
                let message =
                    format!("it ran for more than its timeout of {}", crate::text::duration(timeout));
                self.on_trouble(node, Trouble::Timeout, message, None, Vec::new());
            }
            // Killed by us, because the user interrupted or because its neighbour was late.
            Some(_) => {
                self.drop_claim(node);
                self.scheduler.release(node);
            }
            None => {
                let times = self.scheduler.crashes(node) + 1;
                let message = match times {
                    1 => format!("its worker {end}"),
                    _ => format!("its worker {end}; it has killed {times} workers"),
                };
                self.on_trouble(node, Trouble::Crash, message, None, Vec::new());
            }
        }
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal) {
        self.state.interrupts += 1;
        self.state.ending = Ending::Interrupted(signal);
        if self.state.interrupts == 1 {
            self.stop();
            let running = crate::text::plural(self.scheduler.taken(), "running node");
            self.report.say(&format!("interrupted: waiting for {running}; once more to stop now"));
        } else {
            for worker in places::ids(&self.state.places) {
                let place = &mut self.state.places[worker.index()];
                if place.life != Life::Empty {
                    place.killing = Some(NodeId(u32::MAX));
                    self.pool.kill(worker);
                }
            }
        }
        // What waits for its next attempt will not get one.
        for node in
            self.scheduler.between_attempts(|node| self.state.places.iter().any(|place| place.holds(node)))
        {
            self.drop_claim(node);
            if self.scheduler.state(node) == State::Taken {
                self.scheduler.release(node);
            }
        }
    }

    /// What had arrived before the end is taken; then the run ends.
    fn on_zygote_gone(&mut self) -> Result<(), RunError> {
        while let Some(event) = self.pool.next(Some(Duration::ZERO)).map_err(RunError::Internal)? {
            if let Event::Message(ToCoordinator::Worker(message)) = event {
                self.on_worker(message)?;
            }
        }
        for worker in places::ids(&self.state.places) {
            for node in self.state.places[worker.index()].abandon() {
                self.drop_claim(node);
                self.scheduler.release(node);
            }
        }
        self.state.stopping = true;
        self.pool.bury_zygote();
        Err(RunError::ZygoteDied)
    }

    // ---- time ----

    fn on_time(&mut self, now: Instant, tick: Duration) {
        while let Some(timer) = self.state.timers.due(now) {
            match timer {
                Timer::Tick => {
                    self.sample_memory();
                    let status = self.status();
                    self.report.show(&status);
                    self.state.timers.set(now + tick, Timer::Tick);
                }
                Timer::Timeout(worker) => self.check_timeout(worker, now),
                Timer::Retry(node) => {
                    if self.scheduler.state(node) == State::Taken {
                        self.drop_claim(node);
                        self.scheduler.release(node);
                    }
                }
                Timer::Share => {
                    self.state.sharing = false;
                    if self.scheduler.runnable() == 0 && self.has_idle_and_behind() {
                        self.take_back();
                    }
                }
            }
        }
    }

    fn check_timeout(&mut self, worker: WorkerId, now: Instant) {
        let timeout_of = |node: NodeId| self.plan.detail(node).and_then(|detail| detail.timeout);
        let Some(place) = self.state.places.get(worker.index()) else { return };
        let shortest = place
            .in_use()
            .iter()
            .flat_map(|(_, sent)| sent.nodes.iter())
            .filter_map(|n| timeout_of(*n))
            .min();
        let Some(shortest) = shortest else { return };
        let current = self.pool.pulse(worker).current().filter(|current| place.holds(current.node));
        let limit = current.and_then(|current| Some((current, timeout_of(current.node)?)));
        let Some((current, timeout)) = limit else {
            // Nothing with a limit runs right now, but something will.
            return self.state.timers.set(now + shortest, Timer::Timeout(worker));
        };
        let ran = Duration::from_nanos(forkyard_shared::sys::now_ns().saturating_sub(current.started_ns));
        if ran < timeout {
            self.state.timers.set(now + (timeout - ran), Timer::Timeout(worker));
        } else if place.killing.is_none() {
            self.state.places[worker.index()].killing = Some(current.node);
            self.pool.kill(worker);
        }
    }

    fn status(&self) -> Status {
        let now = forkyard_shared::sys::now_ns();
        let mut running: Vec<(String, Duration)> = places::ids(&self.state.places)
            .filter_map(|worker| {
                let current = self.pool.pulse(worker).current()?;
                let name = self.plan.name(current.node).to_string();
                Some((name, Duration::from_nanos(now.saturating_sub(current.started_ns))))
            })
            .collect();
        running.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
        let counts = self.scheduler.counts();
        Status {
            wanted: self.scheduler.wanted(),
            settled: counts.settled(),
            cached: counts.cached,
            failed: counts.failures(),
            running,
            longest_remaining: f64::from(self.scheduler.longest_remaining()),
        }
    }

    fn sample_memory(&mut self) {
        let private = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        };
        let pids = self.state.places.iter().filter_map(|place| match place.life {
            Life::Runs(pid) => Some(pid),
            Life::Empty | Life::Asked => None,
        });
        let total: u64 = pids.filter_map(private).sum::<u64>() * 1024;
        self.state.peak_private_bytes = self.state.peak_private_bytes.max(total);
    }

    // ---- the store's thread ----

    fn check_writer(&mut self) -> Result<(), RunError> {
        match self.writer.failed() {
            None => Ok(()),
            Some(error) => Err(RunError::Store(error)),
        }
    }

    /// Results that were thrown away because an artifact had changed: their nodes fail, by its name.
    fn take_discarded(&mut self) {
        for (node, artifact) in self.writer.discarded() {
            self.state.ending = Ending::ArtifactChanged(artifact);
            let message = self.changed(artifact);
            if matches!(self.scheduler.state(node), State::Settled(outcome) if outcome.is_done()) {
                self.give_up(node, Outcome::Failed, message, None, Vec::new());
            }
        }
    }

    fn changed(&self, artifact: ArtifactId) -> String {
        let entry = &self.plan.artifacts[artifact.index()];
        format!("artifact \"{}\" ({}) was changed while the run used it", entry.name, entry.path.display())
    }

    // ---- telling ----

    fn tell(
        &mut self,
        node: NodeId,
        outcome: Outcome,
        ran: Option<(Ran, Vec<u8>)>,
        value: Option<(Digest, u64)>,
        error: Option<&str>,
    ) {
        self.forget_read(node);
        let (ran, log) = ran.unzip();
        let ran = ran.filter(|ran| ran.started_ns != 0);
        let attempt = self.scheduler.attempt(node);
        let key = (outcome.is_done()).then(|| self.keys.of(node));
        self.writer.note(&JournalEntry {
            node: self.plan.name(node).into(),
            outcome,
            attempt,
            key,
            duration_us: ran.map_or(0, |ran| ran.duration_ns / 1000),
            error: error.map(String::from),
            log: log.unwrap_or_default(),
        });
        if self.report.wants_all_nodes() || !outcome.is_done() {
            self.report.node_finished(&Finished {
                node: self.plan.name(node),
                op: self.ops.name(self.plan.ops[node.index()]),
                outcome,
                attempt,
                ran,
                digest: value.map(|(digest, _)| digest.to_hex()),
                bytes: value.map(|(_, len)| len),
                error,
            });
        }
    }
}

/// Stands for an attempt of which no time is known.
const NOT_RUN: Ran = Ran { worker: WorkerId(0), started_ns: 0, duration_ns: 0 };
