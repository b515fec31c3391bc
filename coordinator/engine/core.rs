//! The turns of the loop, and what a run consists of while it goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{ArtifactId, NodeId, WorkerId};
use forkyard_shared::protocol::Param;
use forkyard_worker::Ops;

use super::cache::Cache;
use super::contexts::Contexts;
use super::dispatch::Claim;
use super::dry::Foreseen;
use super::evaluate::Resolved;
use super::family::Family;
use super::gates::Gates;
use super::guard::Guard;
use super::lineage::Lineages;
use super::memory::Memory;
use super::results::Held;
use super::submitted::Submissions;
use crate::admission::Admission;
use crate::alerts::Watch;
use crate::artifacts::OpenArtifact;
use crate::attempts::Attempts;
use crate::cost::Costs;
use crate::hands::Hands;
use crate::key::{Keys, ResultId};
use crate::memory::{Fences, Machine, Rooms};
use crate::nodes::Nodes;
use crate::places::Place;
use crate::plan::{Flow, Plan};
use crate::pool::{Event, Pool};
use crate::report::{Finished, Ran, Report};
use crate::run::{CrewFigures, Ending, Limits, RunError};
use crate::schedule::{Scheduler, State};
use crate::stats::Series;
use crate::store::{JournalEntry, Layout, Outcome, Reader, RunDir, Shares, StoreDir, Writer};
use crate::timers::{Timer, Timers};

/// How often progress is told at the least.
const TICK: Duration = Duration::from_secs(1);

/// A run in progress.
pub(crate) struct Engine<'a> {
    pub nodes: Nodes,
    pub ops: &'a Ops,
    pub artifacts: Arc<[OpenArtifact]>,
    pub dir: &'a StoreDir,
    pub run: Option<&'a RunDir>,
    pub layout: Layout,
    pub limits: Limits,
    pub scheduler: Scheduler<'a>,
    pub keys: Keys<'a>,
    pub contexts: Contexts,
    pub costs: Costs,
    pub reader: Reader,
    pub writer: Writer,
    pub pool: &'a mut dyn Hands,
    pub report: &'a mut Report,
    /// Maps the artifacts, once, before the first worker is needed.
    pub attach: &'a mut (dyn FnMut(&Pool, &mut Report) -> Result<(), RunError> + Send),
    pub state: Progressing,
}

/// What changes while a run goes on, beside the scheduler.
pub(crate) struct Progressing {
    pub(super) attached: bool,
    pub(super) places: Vec<Place>,
    pub(super) next_batch: u32,
    pub(super) timers: Timers,
    pub(super) sharing: bool,
    /// Nodes in workers' hands by key, and the identical ones that wait for them.
    pub(super) in_flight: HashMap<Digest, Claim>,
    pub(super) results: HashMap<NodeId, Held>,
    pub cache: Cache,
    /// Nodes that have the result of another one, which is on its way into the store.
    pub(super) same: HashMap<NodeId, Vec<NodeId>>,
    /// Parameters of nodes that are looked up or run, where expressions had to be worked out.
    pub(super) resolved: HashMap<NodeId, Resolved>,
    pub(super) families: HashMap<NodeId, Family>,
    /// Nodes of which there may be items to make.
    pub(super) expandable: VecDeque<NodeId>,
    /// Results of items that are about to be settled.
    pub(super) item_results: HashMap<NodeId, ResultId>,
    /// Lists of items' results that nodes read whole.
    pub(super) lists: HashMap<NodeId, Param>,
    /// Nodes whose items follow those of another one, by that one.
    pub(super) followers: HashMap<NodeId, Vec<NodeId>>,
    /// Nodes whose result is that of another: of the winner of a race, of the last iteration.
    pub(super) alias: HashMap<NodeId, NodeId>,
    /// The keys of members of races.
    pub(super) member_keys: HashMap<NodeId, Digest>,
    /// Races by their members.
    pub(super) races: HashMap<NodeId, Vec<NodeId>>,
    /// Races that have a member at the goal, and that member.
    pub(super) decidable: Vec<(NodeId, NodeId)>,
    pub(super) attempts: Attempts,
    /// Why members of races failed.
    pub(super) errors: HashMap<NodeId, String>,
    pub(super) gates: Gates,
    pub(super) lineages: Lineages,
    /// Set when nothing is to be run.
    pub(super) foreseen: Option<Foreseen>,
    /// Nodes that other threads submit, if they may.
    pub submissions: Option<Submissions>,
    /// Nodes that came into being.
    pub(super) generated: usize,
    /// Set when only what accepts failures is still started.
    pub(super) draining: bool,
    /// Nodes between two attempts.
    pub(super) retries: HashSet<NodeId>,
    /// Nodes of which one has ended its process: each is run alone until it is known which.
    pub(super) suspects: HashSet<NodeId>,
    /// How often the result of a node could not be read back.
    pub(super) losses: HashMap<NodeId, u32>,
    /// How many nodes read each node's result.
    pub(super) readers: HashMap<NodeId, usize>,
    /// Nodes whose results, if they are large, are needed as files.
    pub(super) read_as_files: HashSet<NodeId>,
    /// Set when nothing new is to be started.
    pub(super) stopping: bool,
    /// Set while nothing new is to be started for now.
    pub(super) paused: bool,
    pub(super) interrupts: u32,
    pub ending: Ending,
    pub peak_private_bytes: u64,
    /// Places there may be at the most.
    pub(super) workers_max: usize,
    /// A sample that is to end as soon as it has shown what its nodes take: the longest it may take, and its nodes.
    pub(super) sample: Option<(Duration, HashSet<NodeId>)>,
    pub shares: Option<Shares>,
    pub(super) memory: Memory,
    pub(super) admission: Admission,
    pub(super) guard: Guard,
    pub(super) fences: Fences,
    /// The worker whose mappings were looked at last.
    pub(super) shared_seen: usize,
    /// Workers that have copied artifacts, of which it was told.
    pub(super) copied: HashSet<(WorkerId, usize)>,
    pub watch: Watch,
    /// How often a worker was forked.
    pub(super) forks: u64,
    /// Nanoseconds from the beginning of a task that ended its worker to the first result of the next one there.
    pub(super) recovery_ns: Series,
}

/// What a run may take of the machine.
pub(crate) struct Provision {
    /// Workers at first, and at the most.
    pub workers: (usize, usize),
    /// What they may hold together, if anybody knows.
    pub budget: Option<u64>,
    /// What there is at the start.
    pub rooms: Option<Rooms>,
    pub machine: Machine,
    /// Artifacts that are mapped from files.
    pub artifacts: u64,
    /// The longest that a sample may take, and its nodes.
    pub sample: Option<(Duration, HashSet<NodeId>)>,
}

impl Provision {
    /// Nothing, for a run that runs nothing.
    pub fn none() -> Provision {
        Provision {
            workers: (1, 1),
            budget: None,
            rooms: None,
            machine: Machine::here(),
            artifacts: 0,
            sample: None,
        }
    }
}

impl Progressing {
    pub fn new(plan: &Plan, ops: &Ops, provision: Provision) -> Progressing {
        let mut state = Progressing::empty(plan, provision);
        state.know(plan, ops, 0);
        state
    }

    /// Takes note of who reads what, in a plan whose first node has this number.
    pub(super) fn know(&mut self, plan: &Plan, ops: &Ops, first: usize) {
        let global = |node: NodeId| NodeId::new(node.index() + first);
        for node in (0..plan.len()).map(NodeId::new) {
            let signature = ops.get(plan.ops[node.index()]).signature();
            let takes_files = signature.runs_command() || signature.calls_python();
            let artifacts = plan.detail(node).map_or(&[][..], |detail| &detail.artifact_results);
            for producer in plan.results_of(node) {
                *self.readers.entry(producer).or_insert(0) += 1;
                if takes_files || artifacts.contains(&producer) {
                    self.read_as_files.insert(producer);
                }
            }
            if plan.flow(node).is_some_and(Flow::reads_own_result) {
                *self.readers.entry(global(node)).or_insert(0) += 1;
            }
        }
        for (follower, leader) in plan.followers() {
            self.followers.entry(leader).or_default().push(global(follower));
        }
        for (race, members) in plan.races() {
            for member in members {
                self.races.entry(*member).or_default().push(global(race));
                // The race itself reads the result, until it is decided whose it is.
                *self.readers.entry(*member).or_insert(0) += 1;
            }
        }
        self.lineages.are_used |= plan.uses_history;
        self.gates.know(plan, first);
    }

    fn empty(plan: &Plan, provision: Provision) -> Progressing {
        let Provision { workers: (workers, workers_max), budget, rooms, machine, artifacts, sample } =
            provision;
        let fences = Fences::new(&machine);
        Progressing {
            attached: false,
            places: (0..workers).map(|_| Place::default()).collect(),
            next_batch: 0,
            timers: Timers::default(),
            sharing: false,
            in_flight: HashMap::new(),
            results: HashMap::new(),
            cache: Cache::new(plan.settings.cache()),
            same: HashMap::new(),
            resolved: HashMap::new(),
            families: HashMap::new(),
            expandable: VecDeque::new(),
            item_results: HashMap::new(),
            lists: HashMap::new(),
            followers: HashMap::new(),
            alias: HashMap::new(),
            member_keys: HashMap::new(),
            races: HashMap::new(),
            decidable: Vec::new(),
            attempts: Attempts::default(),
            errors: HashMap::new(),
            gates: Gates::default(),
            lineages: Lineages::default(),
            draining: false,
            retries: HashSet::new(),
            suspects: HashSet::new(),
            losses: HashMap::new(),
            readers: HashMap::new(),
            read_as_files: HashSet::new(),
            foreseen: None,
            submissions: None,
            generated: 0,
            stopping: false,
            paused: false,
            interrupts: 0,
            ending: Ending::Complete,
            peak_private_bytes: 0,
            workers_max,
            sample,
            shares: None,
            memory: Memory::new(machine, rooms.as_ref(), artifacts),
            admission: Admission::new(budget, workers),
            guard: Guard::new(rooms.as_ref()),
            fences,
            shared_seen: 0,
            copied: HashSet::new(),
            watch: Watch::new(plan.settings.alerts.clone()),
            forks: 0,
            recovery_ns: Series::default(),
        }
    }
}

impl Engine<'_> {
    /// Runs until every node is settled, or until the run has to stop. What is in hand is durable, or has
    /// failed to become so, when this returns.
    pub fn run(&mut self) -> Result<(), RunError> {
        let result = self.turns();
        self.conclude(result)
    }

    /// What is to be done after the last turn, which came to this.
    pub fn conclude(&mut self, result: Result<(), RunError>) -> Result<(), RunError> {
        if result.is_err() {
            // Nobody writes any more; if the disk was full, there may be room now for what is in hand.
            self.pool.end();
            self.dir.clear_tmp(None);
        }
        self.writer.flush();
        self.take_discarded();
        if self.state.stopping || result.is_err() {
            // Before others leave through them.
            self.clear_gates();
            for node in self.scheduler.cancel_rest() {
                self.tell(node, Outcome::Cancelled, None, None, None);
            }
        }
        self.writer.flush();
        result?;
        self.measure_shares();
        self.check_writer()
    }

    pub(super) fn turns(&mut self) -> Result<(), RunError> {
        self.begin();
        while let Some(limit) = self.turn()? {
            self.hear(limit)?;
        }
        Ok(())
    }

    /// Before the first turn.
    pub fn begin(&mut self) {
        self.state.timers.set(self.pool.now() + self.tick(), Timer::Tick);
        if let Some((limit, _)) = &self.state.sample {
            self.state.timers.set(self.pool.now() + *limit, Timer::SampleEnd);
        }
        self.recall();
    }

    /// Does what follows from what has happened. For how long there is nothing to do then, if nothing happens; none:
    /// the run is over.
    pub fn turn(&mut self) -> Result<Option<Duration>, RunError> {
        self.take_submitted()?;
        #[cfg(any(test, fuzzing))]
        self.sanity_check();
        self.expand();
        self.look_up()?;
        if !self.scheduler.has_fresh() {
            self.decide_races();
        }
        self.tell_left_out();
        self.heed_pause();
        // A race may be won by a member whose result is stored: none is started before that is known.
        if self.state.races.is_empty() || !self.scheduler.has_fresh() {
            self.fill_workers()?;
        }
        self.writer.hand_over();
        self.take_placed();
        let open = !self.state.expandable.is_empty() || !self.state.decidable.is_empty();
        let settled = self.scheduler.is_drained() && !open || self.state.stopping;
        let may_go_on = self.awaits_submissions() && !self.state.stopping;
        if settled && self.scheduler.taken() == 0 && !may_go_on {
            // The last group may yet fail, or bring down what named a changed artifact.
            self.writer.flush();
            self.check_writer()?;
            self.take_discarded();
            return Ok(None);
        }
        self.answer_settled();
        self.report.flush();
        let more_to_look_up =
            (self.scheduler.has_fresh() || open || self.has_submissions()) && !self.state.stopping;
        let limit =
            if more_to_look_up { Some(Duration::ZERO) } else { self.state.timers.wait(self.pool.now()) };
        // Progress is told now and then, if nothing else happens.
        Ok(Some(limit.unwrap_or(TICK)))
    }

    /// Waits for the next event, at most so long, and acts on it; whether there was one.
    pub fn hear(&mut self, limit: Duration) -> Result<bool, RunError> {
        let event = self.pool.next(Some(limit)).map_err(RunError::Internal)?;
        let heard = event.is_some();
        match event {
            Some(Event::Message(message)) => self.on_message(message)?,
            Some(Event::Garbled(worker, why)) => self.on_garbled(worker, why)?,
            Some(Event::Signal(signal)) => self.on_signal(signal),
            Some(Event::Memory) => self.look_at_memory(self.pool.now()),
            Some(Event::ZygoteGone) => self.on_zygote_gone()?,
            None => {}
        }
        self.on_time(self.pool.now(), self.tick());
        Ok(heard)
    }

    /// How often progress is told.
    fn tick(&self) -> Duration {
        self.report.interval().unwrap_or(TICK).min(TICK)
    }

    /// What became of the processes.
    pub fn crew_figures(&mut self) -> CrewFigures {
        CrewFigures {
            token: self.pool.token().into(),
            workers: self.state.places.len(),
            forks: self.state.forks,
            recovery_ns: std::mem::take(&mut self.state.recovery_ns),
        }
    }

    pub(super) fn check_writer(&mut self) -> Result<(), RunError> {
        match self.writer.failed() {
            None => Ok(()),
            Some(error) => Err(RunError::Store(error)),
        }
    }

    /// Results that were thrown away because an artifact had changed: their nodes fail, by its name.
    pub(super) fn take_discarded(&mut self) {
        for (node, artifact) in self.writer.discarded() {
            self.state.ending = Ending::ArtifactChanged(artifact);
            if self.state.submissions.is_some() {
                // They are answered, and their numbers may be others'.
                self.stop();
                continue;
            }
            let message = self.changed(artifact);
            if matches!(self.scheduler.state(node), State::Settled(outcome) if outcome.is_done()) {
                self.give_up(node, Outcome::Failed, message, None, Vec::new());
            }
        }
    }

    pub(super) fn changed(&self, artifact: ArtifactId) -> String {
        let entry = &self.nodes.plan.artifacts[artifact.index()];
        format!("artifact \"{}\" ({}) was changed while the run used it", entry.name, entry.path.display())
    }

    pub(super) fn tell(
        &mut self,
        node: NodeId,
        outcome: Outcome,
        ran: Option<(Ran, Vec<u8>)>,
        value: Option<(Digest, u64)>,
        error: Option<&str>,
    ) {
        self.leave(node);
        self.forget_read(node);
        self.keys.settled(node);
        self.note_settled(node, outcome, error);
        if !outcome.is_done() {
            self.keys.set(node, Digest::of(outcome.word().as_bytes()));
        }
        let (ran, log) = ran.unzip();
        let ran = ran.filter(|ran| ran.started_ns != 0);
        let attempt = match outcome {
            Outcome::Ran => self.state.attempts.number(node),
            Outcome::Failed | Outcome::TimedOut => self.state.attempts.number(node) - 1,
            Outcome::Cached | Outcome::Skipped | Outcome::Blocked | Outcome::Cancelled => 0,
        };
        // A node that is done and has an error has a result that is not kept.
        let is_list = self.is_list(node);
        let key = (outcome.is_done() && error.is_none() && !is_list).then(|| self.keys.of(node));
        if self.writer.keeps() {
            self.writer.note(JournalEntry {
                node: self.nodes.name_ref(node),
                outcome,
                attempt,
                key,
                duration_us: ran.map_or(0, |ran| ran.duration_ns / 1000),
                error: error.map(String::from),
                log: log.unwrap_or_default(),
            });
        }
        if self.report.wants_all_nodes() || !outcome.is_done() || error.is_some() {
            self.report.node_finished(&Finished {
                node: &self.nodes.name(node),
                op: self.ops.name(self.nodes.op(node)),
                outcome,
                attempt,
                ran,
                digest: value.map(|(digest, _)| digest.to_hex()),
                bytes: value.map(|(_, len)| len),
                error,
            });
        }
        self.state.attempts.forget(node);
        self.state.admission.forget(node);
        self.state.guard.settled(node);
        self.watch_node(node, outcome, ran);
    }
}

/// Stands for an attempt of which no time is known.
pub(super) const NOT_RUN: Ran = Ran { worker: WorkerId(0), started_ns: 0, duration_ns: 0 };
