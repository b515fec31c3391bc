//! Looking ready nodes up: what is stored is done without a worker.

use std::ops::ControlFlow;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::value::{Kind, NULL_DIGEST};

use super::core::Engine;
use super::decide::Decision;
use super::evaluate::Unknown;
use super::results::At;
use crate::key::{Keys, ResultId, Said};
use crate::nodes::Nodes;
use crate::run::RunError;
use crate::schedule::State;
use crate::store::{AtHand, Extra, Lost, Outcome, Record};

/// Fresh nodes looked up in one turn: messages are not kept waiting for longer.
const LOOK_UPS_A_TURN: usize = 4096;

/// Nodes whose data is fetched from memory side by side.
pub(super) const ABREAST: usize = 32;

impl Engine<'_> {
    pub(super) fn look_up(&mut self) -> Result<(), RunError> {
        let (mut some, mut looked_up) = (Vec::with_capacity(ABREAST), 0);
        while looked_up < LOOK_UPS_A_TURN {
            self.tell_left_out();
            self.scheduler.next_fresh_ones(ABREAST, &mut some);
            if some.is_empty() {
                break;
            }
            self.fetch(some.iter().copied());
            for (at, node) in some.iter().enumerate() {
                if self.state.stopping {
                    self.scheduler.still_fresh(&some[at..]);
                    return Ok(());
                }
                if self.look_one_up(*node).is_break() {
                    self.scheduler.still_fresh(&some[at + 1..]);
                    return Ok(());
                }
            }
            looked_up += some.len();
        }
        Ok(())
    }

    /// Breaks if somebody does not want to wait for it; then the node is fresh again.
    fn look_one_up(&mut self, node: NodeId) -> ControlFlow<()> {
        // Who comes after what was left out looks at what that hands on.
        self.tell_left_out();
        if self.scheduler.state(node) != State::Ready {
            // What came before it in this turn has settled it.
            return ControlFlow::Continue(());
        }
        match self.decide(node) {
            Ok(Decision::LookUp) => {}
            Ok(Decision::Skip(_)) | Err(Unknown::Wrong(_)) if self.scheduler.waits_for_leader(node) => {
                return ControlFlow::Continue(());
            }
            Ok(Decision::Skip(why)) => {
                self.skip(node, &why);
                return ControlFlow::Continue(());
            }
            Ok(Decision::Open(source)) => {
                self.open(node, source);
                return ControlFlow::Continue(());
            }
            Err(why) if self.is_dry() => {
                if let Unknown::Wrong(why) = &why {
                    self.watch_none(node, why);
                }
                self.scheduler.must_run(node);
                return ControlFlow::Continue(());
            }
            Ok(Decision::Wait) => return ControlFlow::Continue(()),
            Err(Unknown::Wrong(why)) => {
                self.scheduler.hold(node);
                self.give_up(node, Outcome::Failed, why, None, Vec::new());
                return ControlFlow::Continue(());
            }
            Err(Unknown::Gone(producer)) => {
                self.scheduler.hold(node);
                self.compute_anew(producer, node);
                return ControlFlow::Continue(());
            }
        }
        if self.needs_no_key(node) {
            self.must_run(node);
            return ControlFlow::Continue(());
        }
        match self.make_key(node) {
            // Because somebody does not want to wait for a digest: the next event tells who.
            Err(_) if self.pool.is_interrupted() => {
                self.scheduler.hold(node);
                self.scheduler.release(node);
                return ControlFlow::Break(());
            }
            Err(why) if self.is_dry() => {
                let absent = |producer: &NodeId| !self.state.results.contains_key(producer);
                let absent = self.nodes.results_of(node).find(absent);
                let why = absent.map_or(why, |producer| self.comes_first(producer));
                self.watch_none(node, &why);
                self.scheduler.must_run(node);
            }
            Err(message) => {
                self.scheduler.hold(node);
                self.give_up(node, Outcome::Failed, message, None, Vec::new());
            }
            Ok(key) => match self.looked_up(node, key) {
                Some(record) => self.on_stored(node, record),
                None if self.is_dry() => self.scheduler.must_run(node),
                None if self.claim(node) => self.must_run(node),
                // An identical one is on its way.
                None => self.scheduler.hold(node),
            },
        }
        ControlFlow::Continue(())
    }

    pub(super) fn make_key(&mut self, node: NodeId) -> Result<Digest, String> {
        if self.keys.is_early(node) {
            return Ok(self.keys.of(node));
        }
        self.walk_key(node, |keys, nodes, said, result| keys.make(nodes, node, said, result))
    }

    /// Has `walk` go over a node's key, with what the node says and what it reads.
    pub(super) fn walk_key<T>(
        &mut self,
        node: NodeId,
        walk: impl FnOnce(&mut Keys, &Nodes, Said, &dyn Fn(NodeId) -> Option<ResultId>) -> T,
    ) -> T {
        let (results, alias) = (&self.state.results, &self.state.alias);
        let followed = self.followed(node);
        let said = match self.state.resolved(node) {
            Some(resolved) => {
                let salt = resolved.salt.as_deref();
                Said { params: &resolved.params, salt, followed, state: &resolved.state }
            }
            None => Said { followed, ..Said::of(self.nodes.detail(node)) },
        };
        let null = ResultId { kind: Kind::Json, digest: NULL_DIGEST };
        let scheduler = &self.scheduler;
        walk(&mut self.keys, &self.nodes, said, &|producer| {
            if !matches!(scheduler.state(producer), State::Settled(outcome) if outcome.is_done()) {
                return Some(null);
            }
            let result = results.get(&producer).or_else(|| results.get(alias.get(&producer)?));
            result.map(|result| result.id)
        })
    }

    fn looked_up(&mut self, node: NodeId, key: Digest) -> Option<Record> {
        if self.state.races.contains_key(&node) {
            self.state.member_keys.insert(node, key);
        }
        let record = self.stored(node, key);
        if self.is_dry() {
            self.watch_key(node, record.as_ref());
        }
        record
    }

    fn stored(&self, node: NodeId, key: Digest) -> Option<Record> {
        if self.limits.runs_anew(&self.nodes, node) {
            return None;
        }
        match self.keys.at_hand(node) {
            AtHand::Absent => return None,
            AtHand::Null => return Some(Record::null()),
            AtHand::Ask | AtHand::Unknown => {}
        }
        self.reader.find(key).unwrap_or_else(|Lost| {
            let name = self.nodes.name(node);
            self.report.say(&format!("the stored result of node {name} is damaged or gone; it runs again"));
            None
        })
    }

    pub(super) fn on_stored(&mut self, node: NodeId, record: Record) {
        let (digest, bytes) = (record.digest, record.len);
        self.is_stored(node, &record);
        let mut extra = Extra::decode(&record.extra).unwrap_or_default();
        extra.generates &= !self.is_submitted(node);
        if extra.generates {
            *self.state.readers.entry(self.nodes.declared(node)).or_insert(0) += 1;
        }
        self.keep(node, ResultId { kind: record.kind, digest }, None, At::Key);
        self.finish(node, Outcome::Cached, extra, Some((digest, bytes)));
    }
}
