//! Races: the first member that succeeds is the race's result, and the others are stopped.
//!
//! A race is decided when nothing is left to be looked up: a member whose result is stored must not lose only
//! because it comes later in the manifest. Who won is stored, so that it is the same the next time.

use std::fs;

use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::ids::NodeId;
use forkyard_shared::value::{Body, Kind, Value};
use std::time::Duration;

use super::core::Engine;
use super::results::At;
use crate::places::Killing;
use crate::schedule::State;
use crate::store::{Extra, NewResult, NewValue, Outcome};

impl Engine<'_> {
    /// A member is done: its races can be decided.
    pub(super) fn reach_goal(&mut self, member: NodeId) {
        for at in 0..self.state.races.get(&member).map_or(0, Vec::len) {
            let race = self.state.races[&member][at];
            if self.is_undecided(race) {
                self.state.decidable.push((race, member));
            }
        }
    }

    fn is_undecided(&self, race: NodeId) -> bool {
        matches!(self.scheduler.state(race), State::Waiting | State::Ready)
    }

    /// Whether a race of this node is won, so that what it returns comes too late.
    pub(super) fn is_too_late(&self, member: NodeId) -> bool {
        let Some(races) = self.state.races.get(&member) else { return false };
        if races.iter().any(|race| self.state.alias.get(race) == Some(&member)) {
            // It has won, and runs once more because its result was lost.
            return false;
        }
        let won = |race: &NodeId| {
            matches!(self.scheduler.state(*race), State::Settled(_))
                || self.state.decidable.iter().any(|(decidable, first)| decidable == race && *first != member)
        };
        let others = self.nodes.users(member).filter(|user| !races.contains(user));
        let needed =
            |user: NodeId| !matches!(self.scheduler.state(user), State::Settled(_) | State::Unwanted);
        // Somebody else may still need it.
        races.iter().all(won) && !others.into_iter().any(needed)
    }

    /// Decides every race that has a member at the goal.
    pub(super) fn decide_races(&mut self) {
        for (race, first) in std::mem::take(&mut self.state.decidable) {
            if self.is_undecided(race) {
                self.decide_race(race, first);
            }
        }
    }

    fn decide_race(&mut self, race: NodeId, first: NodeId) {
        let flow = self.nodes.flow(race).expect("BUG: a race without members");
        let key = self.race_key(&flow.race);
        let before =
            key.and_then(|key| self.reader.lookup(key)).and_then(|record| self.reader.read(&record).ok());
        let before = before.and_then(|name| self.nodes.find(std::str::from_utf8(&name).ok()?));
        let before = before.filter(|member| flow.race.contains(member) && self.is_done(*member));
        let winner = before.unwrap_or(first);
        if let Some(key) = key.filter(|_| before.is_none()) {
            let name = self.nodes.name(winner).as_bytes().to_vec();
            let Value { kind, digest, body } = Value::inline(Kind::Text, name);
            let Body::Inline(name) = body else { unreachable!("BUG: an inline value that is none") };
            let (value, duration) = (NewValue::Bytes(name), Duration::ZERO);
            self.writer.put(NewResult {
                node: race,
                key,
                kind,
                digest,
                value,
                duration,
                artifacts: Vec::new(),
                wanted: false,
                extra: Extra { winner: Some(self.keys.of(winner)), ..Extra::default() }.encode(),
            });
        }
        // Who reads the race's result reads the winner's.
        let (readers, source) = (self.readers(race), self.source(winner));
        if let Some(held) = self.state.results.get_mut(&source) {
            held.readers += readers;
        }
        self.state.alias.insert(race, winner);
        self.keys.set(race, self.keys.of(winner));
        if let Some(id) = self.state.results.get(&winner).map(|held| held.id) {
            self.keep(race, id, None, At::Unknown);
        }
        let outcome = match self.scheduler.state(winner) {
            State::Settled(Outcome::Cached) => Outcome::Cached,
            _ => Outcome::Ran,
        };
        self.finish(race, outcome, Extra::default(), None);
        self.forget(source);
        for &loser in flow.race.iter().filter(|member| **member != winner) {
            if self.is_too_late(loser) {
                self.lose(loser);
            }
        }
    }

    /// What the members are: nothing if one of them has no key yet.
    fn race_key(&self, members: &[NodeId]) -> Option<Digest> {
        let mut hasher = Hasher::new();
        hasher.update(b"race");
        for member in members {
            hasher.update(&self.state.member_keys.get(member)?.0);
        }
        Some(hasher.finish())
    }

    /// The node is not wanted any more: if it runs, it is killed.
    fn lose(&mut self, loser: NodeId) {
        match self.scheduler.state(loser) {
            State::Waiting | State::Ready => self.release_waiting(loser),
            State::Taken => self.stop_node(loser),
            State::Open | State::Unwanted | State::Settled(_) => return,
        }
        let blocked = self.scheduler.cancel(loser);
        self.tell(loser, Outcome::Cancelled, None, None, Some("another member of its race has won"));
        self.blocked(loser, blocked);
        // A race that has lost a race takes along who ran for it alone.
        for &member in self.nodes.flow(loser).map_or(&[][..], |flow| &flow.race) {
            if self.is_too_late(member) {
                self.lose(member);
            }
        }
    }

    /// Takes a node out of whatever hands it is in.
    pub(super) fn stop_node(&mut self, node: NodeId) {
        self.leave(node);
        self.release_waiting(node);
        self.state.retries.remove(&node);
        self.forget_waiting(node);
        self.stop_waiting(node);
        let holder =
            crate::places::ids(&self.state.places).find(|id| self.state.places[id.index()].holds(node));
        let Some(worker) = holder else { return };
        if self.state.places[worker.index()].lanes.iter().any(|lane| lane.node == node) {
            // It gives up without harm to those beside it.
            return self.pool.cancel(worker, node);
        }
        self.take_back_from(worker);
        // If its worker still has it, it runs, or is about to, or has ended and was not reported: then another may run.
        let current = self.pool.pulse(worker).current();
        let place = &mut self.state.places[worker.index()];
        if place.holds(node) && current.is_none_or(|current| current.node == node) && place.killing.is_none()
        {
            place.killing = Some(Killing::Node(node));
            self.pool.kill(worker);
        }
    }

    /// What came back of a node that is not wanted any more.
    pub(super) fn drop_late(&mut self, value: &Value) {
        if let Body::File { name, .. } = &value.body {
            fs::remove_file(self.dir.tmp_dir().join(name)).ok();
        }
    }

    /// Whether none of the members was run, by their own rules.
    pub(super) fn all_skipped(&self, members: &[NodeId]) -> bool {
        members.iter().all(|member| self.scheduler.state(*member) == State::Settled(Outcome::Skipped))
    }

    /// Why none of the members has won.
    pub(super) fn losses(&self, members: &[NodeId]) -> String {
        let loss = |member: &NodeId| {
            let word = match self.scheduler.state(*member) {
                State::Settled(outcome) => outcome.word(),
                _ => "unsettled",
            };
            let error = self.state.errors.get(member).map_or("", String::as_str);
            format!("{} {word}: {error}", self.nodes.name(*member))
        };
        let losses: Vec<String> = members.iter().map(loss).collect();
        format!("no member of the race succeeded: {}", losses.join("; "))
    }
}
