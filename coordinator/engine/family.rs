//! Nodes that consist of items or iterations: making them in windows, and what follows when one is settled.
//!
//! A family costs some 40 bytes an item: which node it is, and what it returned.

use std::collections::VecDeque;

use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::ids::{ArtifactId, NodeId};
use forkyard_shared::protocol::Writes;
use forkyard_shared::value::{Kind, NULL_DIGEST};

use super::core::Engine;
use super::evaluate::Unknown;
use super::results::{At, Held};
use crate::expr::Items;
use crate::key::ResultId;
use crate::nodes::Item;
use crate::plan::{Fan, Flow, OnItemFailure};
use crate::room::{self, NODES_MAX};
use crate::schedule::State;
use crate::store::{Extra, Outcome};

/// Items of one node that are under way at once. Enough to fill every worker, little enough to keep in memory.
const WINDOW: usize = 4096;

/// Items of one node that may end before an earlier one does without more memory for them.
const EARLY: usize = 1 << 16;

/// So many look-ups are worth a look at the whole store.
const LEARN_FROM: u32 = 1000;

/// The items of one node.
pub(super) struct Family {
    pub source: Source,
    /// By item, as far as there is one; else [`NOBODY`].
    items: Vec<NodeId>,
    /// What the items came to, in their order.
    ends: Ends,
    /// Items that are not settled.
    live: usize,
    ran: bool,
    failed: usize,
    /// Why the first item that failed did.
    first_failure: Option<(u32, String)>,
    /// What each item publishes, in the order of the words.
    published: Vec<Vec<Option<Vec<u8>>>>,
    /// An item was not run because of what it follows.
    hindered: bool,
    /// An item was not run because the run stops.
    cancelled: bool,
    /// No more items are started.
    stopped: bool,
    closed: bool,
}

/// Where items come from.
pub(super) enum Source {
    /// A list, so many for each task.
    Items(Items, Option<u32>),
    /// The rows of an artifact: how many, and so many for each task.
    Rows(ArtifactId, u32, Option<u32>),
    /// The items of another node, as they come.
    Each(VecDeque<u32>),
    /// One iteration after the other.
    Repeat,
}

impl Source {
    /// How many tasks there are, where that is known before.
    fn tasks(&self) -> Option<u32> {
        match self {
            Source::Items(items, chunk) => Some(items.len().div_ceil(chunk.unwrap_or(1))),
            Source::Rows(_, rows, chunk) => Some(rows.div_ceil(chunk.unwrap_or(1))),
            Source::Each(_) | Source::Repeat => None,
        }
    }
}

/// Stands for an item that is yet to be made.
const NOBODY: NodeId = NodeId(u32::MAX);

/// The digests of what items returned, and of their keys, made as they come: only those that come out of order are
/// kept.
struct Ends {
    next: u32,
    /// From the next one on, as far as they have ended.
    early: VecDeque<Option<ResultId>>,
    results: Hasher,
    keys: Hasher,
}

impl Ends {
    fn new() -> Ends {
        let mut keys = Hasher::new();
        keys.update(b"items");
        Ends { next: 0, early: VecDeque::new(), results: Hasher::new(), keys }
    }

    /// Whether this item has ended.
    fn has(&self, index: u32) -> bool {
        index.checked_sub(self.next).is_none_or(|at| self.early.get(at as usize).is_some_and(Option::is_some))
    }

    /// An item has ended; `key` tells the keys of those that have.
    fn put(&mut self, index: u32, result: Option<ResultId>, key: impl Fn(u32) -> Digest) {
        let null = ResultId { kind: Kind::Json, digest: NULL_DIGEST };
        // Otherwise it ran again because its result was gone, and counts as it was.
        let Some(at) = index.checked_sub(self.next) else { return };
        let at = at as usize;
        if self.early.len() <= at {
            self.early.resize(at + 1, None);
        }
        self.early[at] = Some(result.unwrap_or(null));
        while let Some(result) = self.early.pop_front_if(|first| first.is_some()).flatten() {
            self.results.update(&[result.kind.code()]);
            self.results.update(&result.digest.0);
            self.keys.update(&key(self.next).0);
            self.next += 1;
        }
    }
}

impl Family {
    fn new(source: Source) -> Family {
        Family {
            source,
            items: Vec::new(),
            ends: Ends::new(),
            live: 0,
            ran: false,
            failed: 0,
            first_failure: None,
            published: Vec::new(),
            hindered: false,
            cancelled: false,
            stopped: false,
            closed: false,
        }
    }

    /// The next item to make, if there is one now.
    fn next(&mut self) -> Option<u32> {
        if self.stopped || self.closed {
            return None;
        }
        let next = self.items.len() as u32;
        let listed = self.source.tasks();
        match &mut self.source {
            Source::Items(..) | Source::Rows(..) => listed.is_some_and(|tasks| next < tasks).then_some(next),
            Source::Each(ready) => ready.pop_front(),
            // The next iteration is made when the one before is judged.
            Source::Repeat => None,
        }
    }

    fn put(&mut self, index: u32, node: NodeId) {
        let index = index as usize;
        if self.items.len() <= index {
            self.items.resize(index + 1, NOBODY);
        }
        self.items[index] = node;
        self.live += 1;
    }
}

impl Engine<'_> {
    /// The nodes that stand for a node's items, in order: `None` has no result. Nothing if it has no items. One may be
    /// there that has to be computed anew.
    pub(super) fn units(&self, node: NodeId) -> Option<Vec<Option<NodeId>>> {
        let family = self.state.families.get(&node)?;
        let done = |unit: &NodeId| Some(*unit).filter(|unit| *unit != NOBODY && !self.has_none(*unit));
        match family.source {
            Source::Repeat => None,
            _ => Some(family.items.iter().map(done).collect()),
        }
    }

    /// All nodes that stand for a node's items or iterations.
    pub(super) fn all_units(&self, node: NodeId) -> Vec<NodeId> {
        let items = self.state.families.get(&node).map_or(&[][..], |family| &family.items);
        items.iter().copied().filter(|unit| *unit != NOBODY).collect()
    }

    /// Whether a node consists of items or iterations.
    pub(super) fn is_family(&self, node: NodeId) -> bool {
        let parts = |flow: &Flow| flow.fan.is_some() || flow.repeat.is_some();
        self.nodes.item(node).is_none() && self.nodes.flow(node).is_some_and(parts)
    }

    /// How many items a node can have.
    pub(super) fn most_items(&self, node: NodeId) -> u32 {
        let flow = self.nodes.flow(node);
        match self.state.families.get(&node).map(|family| &family.source) {
            Some(Source::Repeat) => flow.and_then(|flow| flow.repeat.as_ref()).map_or(1, |repeat| repeat.max),
            // As many as the one at the head of the line.
            Some(Source::Each(_)) => flow.and_then(Flow::each).map_or(1, |leader| self.most_items(leader)),
            Some(listed) => listed.tasks().unwrap_or(1),
            None => 1,
        }
    }

    /// Whether a node's result is the list of its items' results.
    pub(super) fn is_list(&self, node: NodeId) -> bool {
        self.state.families.get(&node).is_some_and(|family| !matches!(family.source, Source::Repeat))
    }

    /// The iteration before this one.
    pub(super) fn iteration_before(&self, node: NodeId) -> Option<NodeId> {
        let Item { of, index } = self.nodes.item(node)?;
        let family = self.state.families.get(&of)?;
        let before = index.checked_sub(1).filter(|_| matches!(family.source, Source::Repeat))?;
        family.items.get(before as usize).copied()
    }

    /// The node that a node's result comes from: the winner of a race, the last iteration.
    pub(super) fn source(&self, node: NodeId) -> NodeId {
        let mut node = node;
        while let Some(other) = self.state.alias.get(&node) {
            node = *other;
        }
        node
    }

    /// The item that this item follows.
    pub(super) fn followed(&self, node: NodeId) -> Option<NodeId> {
        let Item { of, index } = self.nodes.item(node)?;
        let leader = self.nodes.flow(of)?.each()?;
        self.state.families.get(&leader)?.items.get(index as usize).copied().filter(|unit| *unit != NOBODY)
    }

    /// The items of `leader` that have ended already; others come later.
    pub(super) fn follow(&self, leader: NodeId) -> Source {
        let Some(family) = self.state.families.get(&leader) else { return Source::Each(VecDeque::new()) };
        let has_ended = |index: &u32| {
            let unit = family.items[*index as usize];
            let is_settled = || matches!(self.scheduler.state(unit), State::Settled(_));
            // One whose result was lost runs again, and does not end twice.
            unit != NOBODY && (family.closed || family.ends.has(*index) || is_settled())
        };
        Source::Each((0..family.items.len() as u32).filter(has_ended).collect())
    }

    /// The node's items may start.
    pub(super) fn open(&mut self, node: NodeId, source: Source) {
        if let Some(tasks) = source.tasks().filter(|tasks| *tasks > LEARN_FROM) {
            // A store that cannot be learnt is asked.
            self.reader.expect(tasks as usize).ok();
        }
        let mut family = Family::new(source);
        self.take_room(node, &mut family);
        self.state.families.insert(node, family);
        self.scheduler.open(node);
        if self.nodes.flow(node).is_some_and(|flow| flow.repeat.is_some()) {
            let iteration = self.add_item(node, 0);
            self.scheduler.enter(iteration);
        } else {
            self.state.expandable.push_back(node);
        }
    }

    /// Takes what all items of a node will need, where it is known how many they are.
    fn take_room(&mut self, node: NodeId, family: &mut Family) {
        let of_leader = || self.state.families.get(&self.nodes.flow(node)?.each()?)?.source.tasks();
        let tasks = family.source.tasks().or_else(of_leader).unwrap_or(0) as usize;
        let nodes = self.nodes.expect(tasks);
        self.scheduler.expect(nodes);
        self.keys.expect(nodes);
        room::take(&mut family.items, tasks.min(NODES_MAX), NOBODY);
        let mut early = Vec::new();
        room::take(&mut early, tasks.min(EARLY), None);
        family.ends.early = early.into();
        if self.readers(node) + self.state.followers.get(&node).map_or(0, Vec::len) > 0 {
            let nobody =
                || Held { id: ResultId { kind: Kind::Json, digest: NULL_DIGEST }, at: At::Key, readers: 0 };
            room::take_map(
                &mut self.state.results,
                tasks.min(NODES_MAX),
                |n| NodeId(u32::MAX - n as u32),
                nobody,
            );
        }
    }

    /// Makes items, as many as may be under way.
    pub(super) fn expand(&mut self) {
        while let Some(node) = self.state.expandable.pop_front() {
            let mut made = Vec::new();
            while let Some(family) = self.state.families.get_mut(&node).filter(|family| family.live < WINDOW)
                && let Some(index) = family.next()
            {
                made.push(self.add_item(node, index));
            }
            // The last one to enter is the first to be looked up.
            for item in made.into_iter().rev() {
                self.begin_item(node, item);
            }
            self.try_close(node);
        }
    }

    /// An item goes its way, if the one that it follows lets it.
    fn begin_item(&mut self, of: NodeId, item: NodeId) {
        let Some(leader) = self.followed(item) else { return self.scheduler.enter(item) };
        let flow = self.nodes.flow(of);
        let skipped = self.scheduler.state(leader) == State::Settled(Outcome::Skipped);
        // It was done, and is so again before anybody reads it.
        let runs_again = !matches!(self.scheduler.state(leader), State::Settled(_));
        let nulls = self.fan(self.nodes.declared(leader)).map(|fan| fan.on_item_failure);
        let goes_on = nulls == Some(OnItemFailure::Null) || flow.is_some_and(|flow| flow.terms.after_any);
        if skipped && !flow.is_some_and(|flow| flow.runs_if_skipped) {
            let why = format!("node {}, which it follows, was skipped", self.nodes.name(leader));
            self.skip(item, &why);
        } else if self.is_done(leader) || runs_again || skipped || goes_on {
            self.scheduler.enter(item);
        } else {
            let why = format!("it needs {}, which did not succeed", self.nodes.name(leader));
            self.block(item, &why);
        }
    }

    fn fan(&self, node: NodeId) -> Option<&Fan> {
        self.nodes.flow(node)?.fan.as_ref()
    }

    fn add_item(&mut self, of: NodeId, index: u32) -> NodeId {
        let node = self.nodes.add_item(of, index);
        let added = self.scheduler.add(self.scheduler.urgency(of), of);
        assert_eq!(node, added, "BUG: two numbers for one item");
        self.keys.add();
        if self.fan(of).is_some_and(|fan| fan.on_item_failure == OnItemFailure::Null) {
            self.scheduler.excuse(node);
        }
        self.state.families.get_mut(&of).expect("BUG: an item of nothing").put(index, node);
        node
    }

    /// What an item publishes.
    pub(super) fn put_published(&mut self, node: NodeId, values: Vec<Option<Vec<u8>>>) {
        let Some(Item { of, index }) = self.nodes.item(node) else { return };
        let Some(family) = self.state.families.get_mut(&of) else { return };
        let index = index as usize;
        if family.published.len() <= index {
            family.published.resize(index + 1, Vec::new());
        }
        family.published[index] = values;
    }

    /// What all items publish, a list for each name: null where an item has nothing to say.
    pub(super) fn published_lists<'n>(
        &mut self,
        node: NodeId,
        names: impl Iterator<Item = &'n String>,
    ) -> Writes {
        let Some(family) = self.state.families.get_mut(&node) else { return Writes::new() };
        let published = std::mem::take(&mut family.published);
        let items = family.items.len();
        let list = |(at, name): (usize, &String)| {
            let value = |item: usize| published.get(item).and_then(|values| values.get(at)?.as_deref());
            let mut list = vec![b'['];
            for item in 0..items {
                if item > 0 {
                    list.push(b',');
                }
                list.extend(value(item).unwrap_or(b"null"));
            }
            list.push(b']');
            (name.clone(), Some(list))
        };
        names.enumerate().map(list).collect()
    }

    /// An item is settled.
    pub(super) fn item_settled(&mut self, node: NodeId, outcome: Outcome, error: Option<&str>) {
        let Some(Item { of, index }) = self.nodes.item(node) else { return };
        let result = self.state.item_results.remove(&node);
        let policy = self.fan(of).map_or(OnItemFailure::Fail, |fan| fan.on_item_failure);
        let Some(family) = self.state.families.get_mut(&of) else { return };
        if family.closed || family.ends.has(index) {
            // It ran again because its result was gone, and counts as it was: those that follow it are there.
            return;
        }
        family.cancelled |= outcome == Outcome::Cancelled;
        if family.cancelled {
            // There will be no list of them.
            family.ends.early = VecDeque::new();
        } else {
            let (keys, items) = (&self.keys, &family.items);
            family.ends.put(index, result, |index| keys.of(items[index as usize]));
        }
        family.live -= 1;
        family.ran |= outcome == Outcome::Ran;
        match outcome {
            Outcome::Ran | Outcome::Cached | Outcome::Skipped => {}
            Outcome::Blocked => family.hindered = true,
            Outcome::Cancelled => {}
            Outcome::Failed | Outcome::TimedOut if policy == OnItemFailure::Null => {}
            Outcome::Failed | Outcome::TimedOut => {
                family.failed += 1;
                if family.first_failure.as_ref().is_none_or(|(first, _)| index < *first) {
                    family.first_failure = Some((index, error.unwrap_or(outcome.word()).into()));
                }
                if policy == OnItemFailure::Stop && !std::mem::replace(&mut family.stopped, true) {
                    self.cancel_items(of);
                }
            }
        }
        let Some(family) = self.state.families.get(&of) else { return };
        let more = family.live < WINDOW / 2;
        for at in 0..self.state.followers.get(&of).map_or(0, Vec::len) {
            let follower = self.state.followers[&of][at];
            if let Some(family) = self.state.families.get_mut(&follower)
                && let Source::Each(ready) = &mut family.source
            {
                ready.push_back(index);
                self.state.expandable.push_back(follower);
            }
        }
        if self.state.families.get(&of).is_some_and(|family| matches!(family.source, Source::Repeat)) {
            return self.judge_iteration(of, node, index, outcome, error);
        }
        if more {
            self.state.expandable.push_back(of);
        }
    }

    /// Cancels the items of a node that nobody has begun.
    fn cancel_items(&mut self, of: NodeId) {
        for item in self.all_units(of) {
            let idle = matches!(self.scheduler.state(item), State::Waiting | State::Ready);
            if idle || self.forget_waiting(item) {
                self.release_waiting(item);
                let blocked = self.scheduler.cancel(item);
                self.tell(item, Outcome::Cancelled, None, None, Some("another item failed"));
                self.after(item, Outcome::Cancelled, None);
                self.blocked(item, blocked);
            }
        }
    }

    /// Settles a node all of whose items are settled.
    fn try_close(&mut self, node: NodeId) {
        let draining = self.scheduler.is_draining(node);
        let each = self.nodes.flow(node).and_then(|flow| flow.each());
        let leader_closed =
            each.is_none_or(|leader| self.state.families.get(&leader).is_none_or(|f| f.closed));
        let Some(family) = self.state.families.get_mut(&node).filter(|family| !family.closed) else { return };
        let more = match &family.source {
            Source::Items(..) | Source::Rows(..) => {
                let tasks = family.source.tasks().unwrap_or(0) as usize;
                !family.stopped && family.items.len() < tasks
            }
            Source::Each(ready) => !family.stopped && (!ready.is_empty() || !leader_closed),
            Source::Repeat => false,
        };
        if family.live > 0 || more && !draining {
            return;
        }
        family.closed = true;
        let (failed, all, ran) = (family.failed, family.items.len(), family.ran);
        let (hindered, cancelled) = (family.hindered, family.cancelled);
        let first = family.first_failure.take();
        if let Some((index, error)) = first {
            let name = self.nodes.name(node);
            let message =
                format!("{failed} of its {all} items did not succeed; the first is {name}[{index}]: {error}");
            self.give_up(node, Outcome::Failed, message, None, Vec::new());
        } else if hindered || self.scheduler.is_hindered(node) {
            self.block(node, "a node that it needs did not succeed");
        } else if more || cancelled {
            self.cancel_open(node);
        } else {
            self.finish_list(node, if ran { Outcome::Ran } else { Outcome::Cached });
        }
        for at in 0..self.state.followers.get(&node).map_or(0, Vec::len) {
            let follower = self.state.followers[&node][at];
            self.try_close(follower);
        }
    }

    /// The run is stopping, and the node has not all that it consists of.
    fn cancel_open(&mut self, node: NodeId) {
        let blocked = self.scheduler.cancel(node);
        self.tell(node, Outcome::Cancelled, None, None, None);
        self.after(node, Outcome::Cancelled, None);
        self.blocked(node, blocked);
    }

    /// All items are done: the node's result is their list.
    fn finish_list(&mut self, node: NodeId, outcome: Outcome) {
        let family = self.state.families.get_mut(&node).expect("BUG: a list of nothing");
        let Ends { results, keys, .. } = std::mem::replace(&mut family.ends, Ends::new());
        let digest = results.finish();
        self.keys.set(node, keys.finish());
        if self.is_dry() && outcome == Outcome::Ran {
            // Nobody knows what the items will return.
            return self.would_run_as_list(node);
        }
        self.keep(node, ResultId { kind: Kind::Json, digest }, None, At::Unknown);
        self.finish(node, outcome, Extra::default(), None);
    }

    /// An iteration is settled: it was the last, or there is another.
    fn judge_iteration(
        &mut self,
        of: NodeId,
        node: NodeId,
        index: u32,
        outcome: Outcome,
        error: Option<&str>,
    ) {
        let close = |engine: &mut Self| {
            engine.state.families.get_mut(&of).expect("BUG: an iteration of nothing").closed = true;
        };
        if outcome == Outcome::Cancelled {
            close(self);
            return self.cancel_open(of);
        }
        if !outcome.is_done() {
            close(self);
            let why = format!("iteration {index} {}: {}", outcome.word(), error.unwrap_or_default());
            return self.give_up(of, Outcome::Failed, why, None, Vec::new());
        }
        if self.is_dry() && outcome == Outcome::Ran {
            close(self);
            return self.would_run_as_list(of);
        }
        let repeat = self.nodes.flow(of).and_then(|flow| flow.repeat.as_ref());
        let repeat = repeat.expect("BUG: an iteration of a node that does not repeat");
        match self.is_enough(node, &repeat.until) {
            Ok(true) => {
                close(self);
                let ran = self.state.families[&of].ran;
                self.finish_repeat(of, node, if ran { Outcome::Ran } else { Outcome::Cached });
            }
            Ok(false) if index + 1 >= repeat.max => {
                close(self);
                let until = repeat.until.text();
                let why = format!("after {} iterations its condition is still false: {until}", index + 1);
                self.give_up(of, Outcome::Failed, why, None, Vec::new());
            }
            Ok(false) => {
                let iteration = self.add_item(of, index + 1);
                self.scheduler.enter(iteration);
            }
            Err(Unknown::Wrong(why)) => {
                close(self);
                self.give_up(of, Outcome::Failed, format!("iteration {index}: {why}"), None, Vec::new());
            }
            Err(Unknown::Gone(gone)) => {
                close(self);
                let why = format!("the result of {} was lost while it was needed", self.nodes.name(gone));
                self.give_up(of, Outcome::Failed, why, None, Vec::new());
            }
        }
    }

    fn is_enough(&mut self, node: NodeId, until: &crate::expr::Expression) -> Result<bool, Unknown> {
        let mut scope = self.scope(node, until.uses())?;
        if until.uses().names.contains("result") {
            let json = self.result_json(node)?;
            scope.set("result", &json)?;
        }
        Ok(until.is_true(&scope)?)
    }

    /// The last iteration's result is the node's.
    fn finish_repeat(&mut self, of: NodeId, last: NodeId, outcome: Outcome) {
        self.keys.set(of, self.keys.of(last));
        self.state.alias.insert(of, last);
        if let Some(held) = self.state.results.get(&last) {
            let id = held.id;
            self.keep(of, id, None, At::Unknown);
        }
        self.finish(of, outcome, Extra::default(), None);
    }
}
