//! Looking ready nodes up: what is stored is done without a worker.

use std::sync::atomic::Ordering::Relaxed;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;

use super::core::Engine;
use super::results::At;
use crate::key::ResultId;
use crate::run::RunError;
use crate::store::{Lost, Outcome, Record};

/// Fresh nodes looked up in one turn: messages are not kept waiting for longer.
const LOOK_UPS_A_TURN: usize = 4096;

impl Engine<'_> {
    pub(super) fn look_up(&mut self) -> Result<(), RunError> {
        for _ in 0..LOOK_UPS_A_TURN {
            if self.state.stopping {
                return Ok(());
            }
            let Some(node) = self.scheduler.next_fresh() else { return Ok(()) };
            match self.make_key(node) {
                // Because somebody does not want to wait for a digest: the next event tells who.
                Err(_) if self.pool.interrupted().load(Relaxed) => {
                    self.scheduler.hold(node);
                    self.scheduler.release(node);
                    return Ok(());
                }
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

    pub(super) fn make_key(&mut self, node: NodeId) -> Result<Digest, String> {
        let results = &self.state.results;
        self.keys.make(node, |producer| results.get(&producer).map(|result| result.id))
    }

    fn stored(&self, node: NodeId, key: Digest) -> Option<Record> {
        if self.limits.runs_anew(self.plan, node) {
            return None;
        }
        self.reader.find(key).unwrap_or_else(|Lost| {
            let name = self.plan.name(node);
            self.report.say(&format!("the stored result of node {name} is damaged or gone; it runs again"));
            None
        })
    }

    pub(super) fn on_stored(&mut self, node: NodeId, record: Record) {
        let (digest, bytes) = (record.digest, record.len);
        self.keep(node, ResultId { kind: record.kind, digest }, None, At::Key);
        self.scheduler.done(node, Outcome::Cached);
        self.tell(node, Outcome::Cached, None, Some((digest, bytes)), None);
    }
}
