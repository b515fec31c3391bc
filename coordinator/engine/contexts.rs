//! Which state each node sees and hands on. The state itself is in [`crate::state`]; here are its ranks, and who
//! needs which context for how long.
//!
//! A node sees what its ancestors wrote. It hands on what it saw and what it wrote itself.

use std::collections::{HashMap, HashSet};

use forkyard_shared::arena::ArenaWriter;
use forkyard_shared::context::{Context, Rank};
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::{Reads, Writes};
use forkyard_worker::Ops;

use super::core::Engine;
use super::evaluate::Unknown;
use crate::context_file::Vars;
use crate::nodes::{Item, Origin};
use crate::plan::{Flow, Plan};
use crate::schedule;
use crate::state::{State, Ticket};

/// The contexts of a run.
pub(crate) struct Contexts {
    state: State,
    /// What every node sees: the manifest's variables.
    root: Context,
    are_used: bool,
    /// The topological number of each of the plan's nodes.
    order: Vec<u32>,
    /// What nodes hand on that are settled, and how many have not looked yet.
    handed: HashMap<NodeId, Handed>,
    /// What nodes see that are not settled yet.
    seen: HashMap<NodeId, Context>,
    readers: HashMap<NodeId, Ticket>,
    /// What all nodes together wrote.
    end: Context,
    /// A node whose context somebody will ask for.
    pub(super) watched: Option<NodeId>,
}

struct Handed {
    context: Context,
    users: usize,
}

/// What a key says of a part of the state.
#[derive(Debug)]
pub(crate) struct StateRead {
    /// The key; none is all of it.
    pub name: Option<String>,
    /// Of its value, or of everything; none if it is not set.
    pub digest: Option<Digest>,
}

impl Contexts {
    /// The contexts of a run, if there is anything to see in them.
    pub fn new(plan: &Plan, ops: &Ops, arena: ArenaWriter) -> Result<Contexts, String> {
        let mut contexts = Contexts {
            state: State::new(arena),
            root: Context::EMPTY,
            are_used: false,
            order: Vec::new(),
            handed: HashMap::new(),
            seen: HashMap::new(),
            readers: HashMap::new(),
            end: Context::EMPTY,
            watched: None,
        };
        if plan.uses_state(ops) {
            contexts.begin(plan)?;
        }
        Ok(contexts)
    }

    /// From now on there is state. Before, nobody has written any: every context is the first one.
    pub fn begin(&mut self, plan: &Plan) -> Result<(), String> {
        if !std::mem::replace(&mut self.are_used, true) {
            self.order = plan.graph.ranks();
            let vars: Writes = plan
                .vars
                .iter()
                .map(|(name, json)| (name.clone(), Some(json.clone().into_bytes())))
                .collect();
            self.root =
                self.state.write(Context::EMPTY, Rank(1), &vars).map_err(|error| error.to_string())?;
            self.state.retain(self.root);
            self.end = self.root;
        }
        Ok(())
    }

    /// Whether there is any state.
    pub fn are_used(&self) -> bool {
        self.are_used
    }

    /// The arena that workers read.
    pub fn arena(&self) -> &ArenaWriter {
        self.state.arena()
    }

    /// What a variable is in a context, as JSON.
    fn get(&self, context: Context, key: &str) -> Result<Option<Vec<u8>>, String> {
        let json = self.state.snapshot(context).get(key).map_err(|error| error.to_string())?;
        Ok(json.map(<[u8]>::to_vec))
    }

    /// Everything that is set at the end of the run.
    pub fn at_end(&self) -> Result<Vars, String> {
        self.all(self.end)
    }

    /// Everything that is set after a node, if it is done.
    pub(super) fn after(&self, plan: &Plan, node: NodeId) -> Result<Option<Vars>, String> {
        if !self.are_used() {
            let vars = plan.vars.iter().map(|(name, json)| (name.clone(), json.clone().into_bytes()));
            return Ok(Some(vars.collect()));
        }
        self.handed.get(&node).map(|handed| self.all(handed.context)).transpose()
    }

    fn all(&self, context: Context) -> Result<Vars, String> {
        let mut all = Vec::new();
        let snapshot = self.state.snapshot(context);
        snapshot
            .iter(|key, json| all.push((key.into(), json.to_vec())))
            .map_err(|error| error.to_string())?;
        all.sort();
        Ok(all)
    }

    fn hand_on(&mut self, node: NodeId, context: Context, users: usize) {
        if users == 0 {
            return self.state.release(context);
        }
        if let Some(before) = self.handed.insert(node, Handed { context, users }) {
            self.state.release(before.context);
        }
    }

    /// A user of `node` has seen what it needs to see.
    fn looked(&mut self, node: NodeId) {
        let Some(handed) = self.handed.get_mut(&node) else { return };
        handed.users -= 1;
        if handed.users == 0 {
            let context = handed.context;
            self.handed.remove(&node);
            self.state.release(context);
        }
    }

    /// A worker is about to read the state for this node.
    fn reading(&mut self, node: NodeId) {
        let ticket = self.state.reader_started();
        if let Some(before) = self.readers.insert(node, ticket) {
            self.state.reader_done(before);
        }
    }

    /// It does not any more.
    pub(super) fn read(&mut self, node: NodeId) {
        // Of most runs none reads.
        if !self.readers.is_empty()
            && let Some(ticket) = self.readers.remove(&node)
        {
            self.state.reader_done(ticket);
        }
    }
}

impl Engine<'_> {
    /// Where a node stands; nothing if there is no room for it among those that come into being.
    pub(super) fn rank(&self, node: NodeId) -> Option<Rank> {
        let (first, end) = self.range(node)?;
        // After its items, but before what it brings into being itself.
        Some(Rank(if self.is_family(node) { end - 1 } else { first }))
    }

    /// The ranks of a node and of all that it brings into being: from, and up to but not with.
    fn range(&self, node: NodeId) -> Option<(u64, u64)> {
        let (of, place, places) = match self.nodes.origin(node) {
            Origin::Plan => {
                let first = u64::from(self.contexts.order[node.index()]) << 32;
                return Some((first, first + (1 << 32)));
            }
            Origin::Submitted => return None,
            Origin::Item(Item { of, index }) => (of, index, self.most_items(of)),
            Origin::Made { generator, number, of } => (generator, number - 1, of),
        };
        let (first, end) = self.range(of)?;
        // One rank for `of` itself at each end.
        let width = (end - first - 2) / u64::from(places.max(1));
        let from = first + 1 + u64::from(place) * width;
        (width > 0 && from + width < end).then_some((from, from + width))
    }

    /// The nodes of which a node takes over what they saw and wrote, when it starts.
    pub(super) fn starts_from(&self, node: NodeId) -> Vec<NodeId> {
        if self.nodes.item(node).is_some() {
            return self.followed(node).into_iter().chain(self.iteration_before(node)).collect();
        }
        if let Some(winner) = self.state.alias.get(&node).filter(|_| !self.is_family(node)) {
            // Of a race only who won.
            return vec![*winner];
        }
        let leader = self.nodes.flow(node).and_then(Flow::each);
        // The items of a leader are followed one by one.
        self.nodes.needs(node).filter(|need| Some(*need) != leader).collect()
    }

    /// The context that a node sees.
    pub(super) fn context(&mut self, node: NodeId) -> Result<Context, Unknown> {
        if !self.contexts.are_used() {
            return Ok(Context::EMPTY);
        }
        if let Some(seen) = self.contexts.seen.get(&node) {
            return Ok(*seen);
        }
        let mut parents = vec![self.contexts.root];
        if let Some(item) = self.nodes.item(node) {
            parents.push(self.context(item.of)?);
        }
        let starts_from = self.starts_from(node);
        parents.extend(self.handed(starts_from.iter().copied()));
        let context = self.contexts.state.join(&parents).map_err(|error| error.to_string())?;
        let context = self.with_released(context, starts_from)?;
        self.contexts.seen.insert(node, context);
        Ok(context)
    }

    /// What a node that runs again, because its result was lost, has seen before: what those that it starts from handed on
    /// may be released by now, but what nodes have written stays. Claimed in place of `context`.
    fn with_released(&mut self, context: Context, starts_from: Vec<NodeId>) -> Result<Context, Unknown> {
        let is_released = |engine: &Self, node: &NodeId| {
            !engine.contexts.handed.contains_key(node)
                && matches!(engine.scheduler.state(*node), schedule::State::Settled(_))
        };
        let mut before: Vec<NodeId> = starts_from;
        before.retain(|node| is_released(self, node));
        if before.is_empty() {
            return Ok(context);
        }
        let (mut seen, mut writers, mut handed) = (HashSet::new(), Vec::new(), vec![context]);
        while let Some(node) = before.pop() {
            if !seen.insert(node) {
                continue;
            }
            if !is_released(self, &node) {
                handed.extend(self.handed([node]));
                continue;
            }
            writers.extend(self.rank(node));
            before.extend(self.starts_from(node));
            before.extend(self.all_units(node));
            match self.nodes.item(node) {
                Some(Item { of, .. }) => before.extend(self.starts_from(of)),
                None => before.extend(self.nodes.flow(node).and_then(Flow::each)),
            }
        }
        let base = self.contexts.state.join(&handed).map_err(|error| error.to_string())?;
        self.contexts.state.release(context);
        let whole = self.contexts.state.with_writers(base, &writers).map_err(|error| error.to_string());
        self.contexts.state.release(base);
        Ok(whole?)
    }

    /// The variable `name` as a node sees it, as JSON.
    pub(super) fn var(&mut self, node: NodeId, name: &str) -> Result<Option<Vec<u8>>, Unknown> {
        if !self.contexts.are_used() {
            return Ok(self.nodes.plan.vars.get(name).map(|json| json.clone().into_bytes()));
        }
        self.is_certain(node)?;
        let context = self.context(node)?;
        Ok(self.contexts.get(context, name)?)
    }

    /// All variables as a node sees them.
    pub(super) fn vars(&mut self, node: NodeId) -> Result<Vars, Unknown> {
        if !self.contexts.are_used() {
            let vars = &self.nodes.plan.vars;
            return Ok(vars.iter().map(|(name, json)| (name.clone(), json.clone().into_bytes())).collect());
        }
        self.is_certain(node)?;
        let context = self.context(node)?;
        Ok(self.contexts.all(context)?)
    }

    /// In a run that runs nothing it may be that nobody knows what is set.
    fn is_certain(&self, node: NodeId) -> Result<(), Unknown> {
        match self.doubt(node) {
            None => Ok(()),
            Some(before) => {
                let before = self.nodes.name(before);
                Err(Unknown::Wrong(format!(
                    "it reads variables, and {before}, which may set them, would run first"
                )))
            }
        }
    }

    /// What the key of a node says of the state that it reads.
    pub(super) fn state_reads(&mut self, node: NodeId) -> Result<Vec<StateRead>, Unknown> {
        let reads = self.nodes.detail(node).map_or(&Reads::Nothing, |detail| &detail.state);
        match reads {
            Reads::Nothing => Ok(Vec::new()),
            Reads::All => {
                self.is_certain(node)?;
                let context = self.context(node)?;
                let digest = self.contexts.state.digest(context).map_err(|error| error.to_string())?;
                Ok(vec![StateRead { name: None, digest: Some(digest) }])
            }
            Reads::Keys(names) => {
                let mut found = Vec::new();
                for name in names {
                    let value = self.var(node, name)?;
                    let digest = value.map(|json| Digest::of(&json));
                    found.push(StateRead { name: Some(name.clone()), digest });
                }
                Ok(found)
            }
        }
    }

    /// What a message says of the state: a context, and what may be read of it.
    pub(super) fn shown(&mut self, node: NodeId) -> (u64, Reads) {
        let reads = self.nodes.detail(node).map_or(Reads::Nothing, |detail| detail.state.clone());
        if reads == Reads::Nothing {
            return (0, reads);
        }
        self.contexts.reading(node);
        // It was made when the node was looked up.
        (self.contexts.seen.get(&node).map_or(0, |context| context.0), reads)
    }

    /// A node is settled: what it saw and wrote is there for those that need it.
    pub(super) fn hand_on(&mut self, node: NodeId, writes: &Writes) -> Result<(), Unknown> {
        if self.is_submitted(node) {
            // Nobody needs it, so that nobody would see what it wrote.
            self.keep_writes(node, writes);
            return Ok(());
        }
        if !self.contexts.are_used() || self.contexts.handed.contains_key(&node) {
            return Ok(());
        }
        let rank = match self.rank(node) {
            // It ran again because its result was gone.
            Some(rank) if self.contexts.state.has_written(rank) => return Ok(()),
            Some(rank) => rank,
            None if writes.is_empty() => Rank(0),
            None => {
                return Err(Unknown::Wrong(
                    "it sets a variable, but nodes have made nodes that make nodes so often that there is no place left for it in their order: make fewer at a time, or set it in a node of the manifest"
                        .into(),
                ));
            }
        };
        let base = self.context(node)?;
        let (item, mut users) = match self.nodes.item(node) {
            Some(Item { of, .. }) => {
                let followers = self.state.followers.get(&of).map_or(0, Vec::len);
                // Its node when all are done, and the next iteration.
                (true, followers + 1 + usize::from(!self.is_list(of)))
            }
            None => (false, 0),
        };
        users += self.scheduler.user_count(node) + usize::from(self.contexts.watched == Some(node));
        let mut items = self.handed(self.all_units(node));
        // By now the leader of its items is settled too.
        items.extend(self.handed(self.nodes.flow(node).and_then(Flow::each).filter(|_| !item)));
        let base = if items.is_empty() {
            self.contexts.state.retain(base);
            base
        } else {
            let parents: Vec<Context> = items.into_iter().chain([base]).collect();
            self.contexts.state.join(&parents).map_err(|error| error.to_string())?
        };
        let context = self.contexts.state.write(base, rank, writes).map_err(|error| error.to_string());
        self.contexts.state.release(base);
        let context = context?;
        if item && users == 1 && writes.is_empty() && self.contexts.seen.get(&node) == Some(&context) {
            // It hands on what its node sees anyway, unless it follows another one that wrote.
            let of = self.nodes.declared(node);
            if self.contexts.seen.get(&of) == Some(&context) {
                users = 0;
            }
        }
        if users == 0 && !item {
            let end = self.contexts.end;
            self.contexts.end =
                self.contexts.state.join(&[end, context]).map_err(|error| error.to_string())?;
            self.contexts.state.release(end);
        }
        self.contexts.hand_on(node, context, users);
        Ok(())
    }

    /// What these nodes hand on.
    fn handed(&self, nodes: impl IntoIterator<Item = NodeId>) -> Vec<Context> {
        let handed = &self.contexts.handed;
        nodes.into_iter().filter_map(|node| Some(handed.get(&node)?.context)).collect()
    }

    /// A node is settled, and sees nothing any more.
    pub(super) fn look_away(&mut self, node: NodeId) {
        if !self.contexts.are_used() {
            return;
        }
        self.contexts.read(node);
        let Some(context) = self.contexts.seen.remove(&node) else { return };
        self.contexts.state.release(context);
        if self.nodes.item(node).is_some() {
            self.starts_from(node).into_iter().for_each(|leader| self.contexts.looked(leader));
        }
        if self.nodes.item(node).is_none() {
            for unit in self.all_units(node) {
                self.contexts.looked(unit);
            }
            self.nodes.needs(node).for_each(|need| self.contexts.looked(need));
        }
    }
}
