//! What comes back of nodes: results, failures, and what follows from them.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::time::Duration;

use forkyard_shared::blob;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::protocol::{Cause, Completion, Failure, FromWorker, Writes};
use forkyard_shared::value::{Body, Value};

use super::core::{Engine, NOT_RUN};
use super::evaluate::Unknown;
use super::results::At;
use crate::attempts::{self, Trouble, Verdict};
use crate::key::ResultId;
use crate::manifest::OnFailure;
use crate::plan::{Arg, Retry};
use crate::report::Ran;
use crate::run::{Ending, RunError};
use crate::schedule::State;
use crate::store::{Extra, NewResult, NewValue, Outcome};
use crate::timers::Timer;

/// A node's result that cannot be read back so often is not lost by chance.
const LOSSES_MAX: u32 = 10;

impl Engine<'_> {
    pub(super) fn on_worker(&mut self, message: FromWorker) -> Result<(), RunError> {
        let FromWorker { worker, batch, done, returned, read } = message;
        let now_ns = self.pool.now_ns();
        self.keys.look_at_code();
        let Some(batch) = batch else {
            let place = &mut self.state.places[worker.index()];
            place.unread = place.unread.saturating_sub(read);
            for mut completion in done {
                if let Some(why) = self.fault_in(worker, None, now_ns, &mut completion) {
                    self.distrust(worker, Some(completion.node), why);
                    return Ok(());
                }
                self.state.places[worker.index()].barren = 0;
                self.on_lane(worker, completion);
            }
            self.retire(worker);
            return Ok(());
        };
        let known = self.nodes.len();
        self.fetch(done.iter().map(|completion| completion.node).filter(|node| node.index() < known));
        // Before the completions: a node that is given back must be waiting when the one before it fails.
        self.return_nodes(worker, batch, usize::from(returned));
        for mut completion in done {
            if let Some(why) = self.fault_in(worker, Some(batch), now_ns, &mut completion) {
                self.distrust(worker, Some(completion.node), why);
                return Ok(());
            }
            let place = &mut self.state.places[worker.index()];
            place.ended(batch, completion.node);
            place.barren = 0;
            if let Some(fell_ns) = place.fell_ns.take() {
                let ended_ns = completion.started_ns + completion.duration_ns;
                self.state.recovery_ns.add(ended_ns.saturating_sub(fell_ns));
            }
            self.on_completion(worker, completion);
        }
        self.have_rested(worker);
        self.retire(worker);
        Ok(())
    }

    /// Looks at what is about to be read of these nodes, all at once. One by one, each would wait for memory.
    pub(super) fn fetch(&self, nodes: impl Iterator<Item = NodeId>) {
        let plan = self.nodes.plan;
        for node in nodes {
            let said =
                |node: NodeId| plan.ops.get(node.index()).map_or(0, |op| op.0 ^ plan.detail_of[node.index()]);
            let users = self.scheduler.graph_users(node).iter();
            let users = users.fold(0, |seen, user| seen ^ said(*user) ^ self.keys.at_hand(*user) as u32);
            black_box(said(node) ^ users ^ self.scheduler.fetch(node) ^ u32::from(self.keys.fetch(node)));
        }
    }

    /// Whether it is in somebody's hands, and wanted.
    pub(super) fn is_taken(&self, node: NodeId) -> bool {
        self.scheduler.state(node) == State::Taken
    }

    pub(super) fn on_completion(&mut self, worker: WorkerId, completion: Completion) {
        let Completion { node, started_ns, duration_ns, outcome, writes, generates, log, cost } = completion;
        let ran = Ran { worker, started_ns, duration_ns };
        if !matches!(&outcome, Err(failure) if failure.cause == Cause::Suspect) {
            if !self.state.suspects.is_empty() {
                self.state.suspects.remove(&node);
            }
            let cost = self.with_seen(worker, node, cost);
            self.costs.learn(self.costs.kind_of(&self.nodes, node), duration_ns, cost);
            self.end_sample();
        }
        self.leave(node);
        if !self.is_taken(node) {
            // It has lost its race.
            return outcome.iter().for_each(|value| self.drop_late(value));
        }
        match outcome {
            Ok(value) if self.is_too_late(node) => {
                self.drop_late(&value);
                self.release_waiting(node);
                let blocked = self.scheduler.cancel(node);
                let why = "another member of its race has won";
                self.tell(node, Outcome::Cancelled, None, None, Some(why));
                self.blocked(node, blocked);
            }
            Ok(value) if self.is_lost_item(node) && self.differs(node, &value) => {
                self.drop_late(&value);
                let why = "it ran again, because its result was lost, and returned something else: nodes may have read the list with what it was; run again";
                self.give_up(node, Outcome::Failed, why.into(), Some(ran), log);
            }
            Ok(value) => {
                // It may have made nothing of the end of what it had started.
                if let Some(why) = self.blame_limit(worker, node, "a process that it started was killed") {
                    self.drop_late(&value);
                    return self.on_trouble(node, Trouble::Error, why, Some(ran), log);
                }
                let generates = generates && !self.is_submitted(node);
                self.on_result(node, value, Extra { writes, generates, winner: None }, ran, log);
            }
            Err(mut failure) => {
                if let Some((held, why)) = self.was_killed_for_memory(worker, node, &failure.message) {
                    return self.on_memory(node, held, &why, Some(ran));
                }
                if let Some(why) = self.blame_limit(worker, node, &failure.message) {
                    failure.message = why;
                }
                self.on_failure(node, failure, ran, log);
            }
        }
    }

    /// Whether a node returned something else before.
    fn differs(&self, node: NodeId, value: &Value) -> bool {
        let before = self.state.results.get(&node).map(|held| held.id);
        before.is_some_and(|before| before != ResultId { kind: value.kind, digest: value.digest })
    }

    pub(super) fn on_result(&mut self, node: NodeId, value: Value, extra: Extra, ran: Ran, log: Vec<u8>) {
        let (kind, digest, len) = (value.kind, value.digest, value.len());
        let changed = self.keys.changed_file(&self.nodes, node);
        if changed.is_some() {
            // Nobody can tell what it read. Identical ones ask again, with the file as it is now.
            self.release_waiting(node);
        }
        let same = self.waiting_for(node);
        let wanted = same.iter().chain([&node]).any(|node| self.readers(*node) > 0) || extra.generates;
        let (new, mut bytes) = match value.body {
            // Copied only where it goes two ways.
            Body::Inline(bytes) if !self.writer.keeps() => (None, Some(bytes)),
            Body::Inline(bytes) => {
                let kept = (wanted || self.is_submitted(node)).then(|| bytes.clone());
                (Some(NewValue::Bytes(bytes)), kept)
            }
            Body::File { name, len, packed } => {
                if let Err(error) = self.adopt_blob(&name, digest, packed) {
                    same.into_iter().for_each(|other| self.scheduler.release(other));
                    let failure =
                        Failure { message: format!("keep result {digest}: {error}"), cause: Cause::Store };
                    return self.on_failure(node, failure, ran, log);
                }
                (Some(NewValue::File { len }), None)
            }
        };
        let id = ResultId { kind, digest };
        if extra.generates {
            for node in same.iter().chain([&node]) {
                *self.state.readers.entry(self.nodes.declared(*node)).or_insert(0) += 1;
            }
        }
        let own = if same.is_empty() { bytes.take() } else { bytes.clone() };
        self.keep(node, id, own, At::Unknown);
        // Before it is stored: a result of which nothing can follow is a failure, and failures are not stored.
        let writes = match self.follow_up(node, extra.clone()) {
            Ok(writes) => writes,
            Err(unknown) => {
                same.into_iter().for_each(|other| self.scheduler.release(other));
                return match unknown {
                    Unknown::Wrong(why) => self.on_trouble(node, Trouble::Error, why, Some(ran), log),
                    Unknown::Gone(producer) => self.compute_anew(producer, node),
                };
            }
        };
        let mut not_kept = None;
        if let Some(path) = changed {
            self.keys.disown(node);
            let path = path.display();
            not_kept = Some(format!("its result is not kept: {path} was changed while it waited or ran"));
        } else if let Some(new) = new {
            let key = self.keys.of(node);
            let duration = Duration::from_nanos(ran.duration_ns);
            let artifacts = self.nodes.artifacts(node).to_vec();
            self.note_fields(node);
            let extra = extra.encode();
            self.writer.put(NewResult {
                node,
                key,
                kind,
                digest,
                value: new,
                duration,
                artifacts,
                wanted,
                extra,
            });
        }
        let value = Some((digest, len));
        self.settle_done(node, Outcome::Ran, &writes, Some((ran, log)), value, not_kept.as_deref());
        for other in same {
            self.keep(other, id, bytes.clone(), At::Unknown);
            if wanted {
                self.state.same.entry(node).or_default().push(other);
            }
            self.finish(other, Outcome::Cached, extra.clone(), value);
        }
    }

    /// A node has its result without having run.
    pub(super) fn finish(
        &mut self,
        node: NodeId,
        outcome: Outcome,
        extra: Extra,
        value: Option<(Digest, u64)>,
    ) {
        match self.follow_up(node, extra) {
            Ok(writes) => self.settle_done(node, outcome, &writes, None, value, None),
            // What it depends on is not there yet.
            Err(_) if self.is_dry() => {
                self.scheduler.done(node, outcome);
                self.after(node, outcome, None);
            }
            Err(Unknown::Gone(producer)) if self.scheduler.state(node) == State::Ready => {
                if producer == node {
                    // Its own stored result turns out to be damaged.
                    if let Some(held) = self.state.results.remove(&node) {
                        self.dir.quarantine(self.layout, held.id.digest).ok();
                    }
                    self.must_run(node);
                } else {
                    self.scheduler.hold(node);
                    self.compute_anew(producer, node);
                }
            }
            Err(unknown) => {
                let why = match unknown {
                    Unknown::Wrong(why) => why,
                    Unknown::Gone(_) => "a result was lost while it was needed; run again".into(),
                };
                if self.scheduler.state(node) == State::Ready {
                    self.scheduler.hold(node);
                }
                self.give_up(node, Outcome::Failed, why, None, Vec::new());
            }
        }
    }

    /// What follows from a node's result, before it counts: its route, what it publishes, the nodes that it lists.
    fn follow_up(&mut self, node: NodeId, extra: Extra) -> Result<Writes, Unknown> {
        self.route(node)?;
        let writes = self.publish(node, extra.writes)?;
        if self.nodes.flow(node).is_some_and(|flow| flow.repeat.is_some() && flow.reads_own_result())
            && self.nodes.item(node).is_some()
        {
            // It will be asked whether this is enough.
            self.own_result(node).map(drop)?;
        }
        // One that has made its nodes may run again, because its result was lost.
        if extra.generates && !self.is_copy(node) && !self.nodes.has_made(node) {
            self.generate(node)?;
        }
        Ok(writes)
    }

    /// Whether a node only has another one's result under a name of its own.
    fn is_copy(&self, node: NodeId) -> bool {
        let params = self.nodes.detail(node).map_or(&[][..], |detail| &detail.params);
        self.ops.name(self.nodes.op(node)) == "value"
            && matches!(params, [(_, Arg::Result(_) | Arg::EachResult)])
    }

    /// A node is done.
    fn settle_done(
        &mut self,
        node: NodeId,
        outcome: Outcome,
        writes: &Writes,
        ran: Option<(Ran, Vec<u8>)>,
        value: Option<(Digest, u64)>,
        not_kept: Option<&str>,
    ) {
        if let Err(Unknown::Wrong(why)) = self.hand_on(node, writes) {
            if self.scheduler.state(node) == State::Ready {
                self.scheduler.hold(node);
            }
            return self.give_up(node, Outcome::Failed, why, ran.map(|(ran, _)| ran), Vec::new());
        }
        self.scheduler.done(node, outcome);
        self.tell(node, outcome, ran, value, not_kept);
        self.after(node, outcome, None);
    }

    /// What follows when a node is settled, for those that it is a part of.
    pub(super) fn after(&mut self, node: NodeId, outcome: Outcome, error: Option<&str>) {
        if !self.state.resolved.is_empty() {
            self.state.resolved.remove(&node);
        }
        self.pass_on_doubt(node);
        if !outcome.is_done() {
            // What its ancestors wrote is there for those that accept that it did not succeed.
            self.hand_on(node, &Writes::new()).ok();
        }
        self.hand_on_lineage(node, outcome.is_done());
        self.look_away(node);
        if outcome.is_done() {
            self.reach_goal(node);
        } else if outcome != Outcome::Skipped && self.state.races.contains_key(&node) {
            self.state.errors.insert(node, error.unwrap_or_default().into());
        }
        self.item_settled(node, outcome, error);
    }

    /// The node is not run, because of one that it needs.
    pub(super) fn block(&mut self, node: NodeId, why: &str) {
        let blocked = self.scheduler.fail(node, Outcome::Blocked);
        self.tell(node, Outcome::Blocked, None, None, Some(why));
        self.after(node, Outcome::Blocked, Some(why));
        self.blocked(node, blocked);
    }

    /// These are not run either, because `node` did not succeed.
    pub(super) fn blocked(&mut self, node: NodeId, blocked: Vec<NodeId>) {
        let why = format!("it needs {}, which did not succeed", self.nodes.name(node));
        for user in blocked {
            self.release_waiting(user);
            self.tell(user, Outcome::Blocked, None, None, Some(&why));
            self.after(user, Outcome::Blocked, Some(&why));
        }
    }

    /// Gives a finished file its name. The store's thread syncs the directory before anything refers to it.
    pub(super) fn adopt_blob(&self, name: &str, digest: Digest, packed: bool) -> io::Result<()> {
        let blobs = self.dir.worker_blobs_dir(self.layout);
        blob::adopt(&blobs, &self.dir.tmp_dir().join(name), digest, packed)
    }

    pub(super) fn on_failure(&mut self, node: NodeId, failure: Failure, ran: Ran, log: Vec<u8>) {
        match failure.cause {
            Cause::Blob(digest) => {
                if blob::check(&self.dir.worker_blobs_dir(self.layout), digest).is_ok() {
                    let message = format!("{}; but it is whole", failure.message);
                    return self.on_trouble(node, Trouble::Crash, message, Some(ran), log);
                }
                if self.forget_list(digest) {
                    // A list of items' results: it is put together again.
                    self.report.say(&format!("{}; it is put together again", failure.message));
                    return self.give_back(node);
                }
                // A result that this node reads is damaged: the node that made it makes it again.
                let producer = self.read_by(node).into_iter().find(|producer| {
                    self.state.results.get(producer).is_some_and(|result| result.id.digest == digest)
                });
                if let Some(producer) = producer {
                    let moved = match self.dir.quarantine(self.layout, digest) {
                        Ok(()) => "; it is in quarantine",
                        Err(_) => "",
                    };
                    self.report.say(&format!(
                        "{}{moved}; node {} runs again",
                        failure.message,
                        self.nodes.name(producer)
                    ));
                    return self.compute_anew(producer, node);
                }
            }
            Cause::Store => {
                self.give_back(node);
                return self.on_full(failure.message);
            }
            Cause::Artifact(artifact) => {
                self.state.ending = Ending::ArtifactChanged(artifact);
                return self.give_up(node, Outcome::Failed, failure.message, Some(ran), log);
            }
            Cause::Suspect => {
                // One of several, and nobody knows which: alone it will show.
                self.state.suspects.insert(node);
                return self.give_back(node);
            }
            Cause::Later(ms) => {
                return self.on_later(node, Duration::from_millis(ms), failure.message, ran, log);
            }
            Cause::Task | Cause::Cancelled => {}
        }
        self.on_trouble(node, Trouble::Error, failure.message, Some(ran), log);
    }

    /// The result of `producer` is gone: it runs again, and `reader`, which found out, waits for it. What else was
    /// in the reader's batch must have been given back. A store that loses it again and again ends the run.
    pub(super) fn compute_anew(&mut self, producer: NodeId, reader: NodeId) {
        // Others find out while it runs again: that is the same loss.
        if self.is_done(producer) {
            let losses = self.state.losses.entry(producer).or_insert(0);
            *losses += 1;
            if *losses == LOSSES_MAX {
                let name = self.nodes.name(producer);
                let why = format!("the result of node {name} could not be read back {LOSSES_MAX} times");
                self.state.ending = Ending::StoreLoses(why);
                self.stop();
            }
        }
        self.leave(reader);
        self.release_waiting(reader);
        match self.scheduler.revive(producer, reader) {
            // Whoever had passed a gate passes it once more; the node itself may have to.
            Some(set_back) => set_back.into_iter().for_each(|node| self.leave(node)),
            None => {
                let why = format!("it needs {}, which did not succeed", self.nodes.name(producer));
                self.give_up(reader, Outcome::Blocked, why, None, Vec::new());
            }
        }
    }

    /// The node asks to be run again after a while.
    fn on_later(&mut self, node: NodeId, wait: Duration, why: String, ran: Ran, log: Vec<u8>) {
        if !self.state.attempts.may_wait(node) {
            let message = format!("it asked {} times to be run later: {why}", attempts::LATER_MAX);
            return self.give_up(node, Outcome::Failed, message, Some(ran), log);
        }
        if self.state.stopping || self.scheduler.is_draining(node) {
            return self.give_back(node);
        }
        self.state.retries.insert(node);
        self.state.timers.set(self.pool.now() + wait, Timer::Retry(node));
    }

    /// An attempt went wrong: the node is tried again, or fails.
    pub(super) fn on_trouble(
        &mut self,
        node: NodeId,
        trouble: Trouble,
        message: String,
        ran: Option<Ran>,
        log: Vec<u8>,
    ) {
        let retry = self.nodes.detail(node).map_or_else(Retry::default, |detail| detail.retry.clone());
        match self.state.attempts.judge(node, trouble, &retry, self.nodes.plan.settings.max_crashes) {
            // Interrupted: there is no time for another attempt, nor has the node failed.
            Verdict::Again(_) if self.state.stopping || self.scheduler.is_draining(node) => {
                self.give_back(node);
            }
            Verdict::Again(delay) if delay.is_zero() => {
                self.give_back(node);
            }
            Verdict::Again(delay) => {
                self.state.retries.insert(node);
                self.state.timers.set(self.pool.now() + delay, Timer::Retry(node));
            }
            Verdict::Fail => {
                let outcome = if trouble == Trouble::Timeout { Outcome::TimedOut } else { Outcome::Failed };
                self.give_up(node, outcome, message, ran, log);
            }
        }
    }

    pub(super) fn give_up(
        &mut self,
        node: NodeId,
        outcome: Outcome,
        message: String,
        ran: Option<Ran>,
        log: Vec<u8>,
    ) {
        self.release_waiting(node);
        let blocked = self.scheduler.fail(node, outcome);
        self.tell(node, outcome, Some((ran.unwrap_or(NOT_RUN), log)), None, Some(&message));
        self.after(node, outcome, Some(&message));
        self.blocked(node, blocked);
        let (failures, counts) = (self.scheduler.counts().failures(), !self.scheduler.is_excused(node));
        let stop = match self.limits.max_failures {
            Some(max) => failures > max,
            // The failure of an item is its node's to judge.
            None => self.limits.on_failure == OnFailure::Stop && counts && self.nodes.item(node).is_none(),
        };
        if stop {
            self.drain();
        }
    }

    /// The store takes no more, which is no node's fault: what is left runs when there is room.
    pub(super) fn on_full(&mut self, message: String) {
        self.state.ending = Ending::StoreFull(message);
        self.stop();
    }

    /// Starts nothing new but what accepts failures.
    pub(super) fn drain(&mut self) {
        if !std::mem::replace(&mut self.state.draining, true) {
            self.scheduler.drain();
            self.take_back();
            for node in std::mem::take(&mut self.state.retries) {
                self.give_back(node);
            }
            self.clear_gates();
            // Who waits for one of these starts anew; one that is still to run keeps those that wait for it.
            self.tell_left_out();
            let open: Vec<NodeId> = self.state.families.keys().copied().collect();
            self.state.expandable.extend(open);
        }
    }

    /// Tells what was left out because the run is stopping, or because of what it needs.
    pub(super) fn tell_left_out(&mut self) {
        let mut left_out: VecDeque<NodeId> = self.scheduler.take_left_out().into();
        while let Some(node) = left_out.pop_front() {
            self.release_waiting(node);
            let failed = |need: &NodeId| {
                let state = self.scheduler.state(*need);
                matches!(state, State::Settled(outcome) if !outcome.is_done() && outcome != Outcome::Skipped)
            };
            match self.scheduler.state(node) {
                State::Settled(Outcome::Blocked) => {
                    let need = self.nodes.needs(node).find(failed).map(|need| self.nodes.name(need));
                    let why = format!("it needs {}, which did not succeed", need.unwrap_or_default());
                    self.tell(node, Outcome::Blocked, None, None, Some(&why));
                    self.after(node, Outcome::Blocked, Some(&why));
                }
                _ => {
                    self.tell(node, Outcome::Cancelled, None, None, None);
                    self.after(node, Outcome::Cancelled, None);
                }
            }
            left_out.extend(self.scheduler.take_left_out());
        }
    }

    /// Starts nothing new.
    pub(super) fn stop(&mut self) {
        if !self.state.stopping {
            self.state.stopping = true;
            self.take_back();
            // What waits for its next attempt will not get one.
            for node in std::mem::take(&mut self.state.retries) {
                self.give_back(node);
            }
            self.clear_gates();
            self.release_all_waiting();
        }
    }
}
