//! A run without running: every node is looked up, and what has no stored result is only noted. What depends on a
//! result that is not there yet counts as to be run.

use std::time::Duration;

use forkyard_shared::ids::NodeId;

use super::core::Engine;
use crate::nodes::Nodes;
use crate::run::RunError;
use crate::store::{Outcome, Record};

/// What a run would do.
#[derive(Default)]
pub(crate) struct Foreseen {
    /// Nodes that would run.
    pub runs: Vec<NodeId>,
    /// Nodes whose result is stored, and how long it took to compute.
    pub stored: Vec<(NodeId, Duration)>,
    /// Nodes that are left out by their own rules.
    pub skipped: Vec<NodeId>,
}

/// All nodes, what would be done with them, the items of those that have any, and what is set after the one that was
/// watched.
type Prospect = (Nodes, Foreseen, Vec<(NodeId, Vec<NodeId>)>, Option<Vec<(String, Vec<u8>)>>);

impl Engine<'_> {
    /// Looks every node up and runs none.
    pub fn foresee(mut self, watched: Option<NodeId>) -> Result<Prospect, RunError> {
        self.state.foreseen = Some(Foreseen::default());
        self.contexts.watched = watched;
        loop {
            self.expand();
            self.look_up()?;
            if !self.scheduler.has_fresh() {
                self.decide_races();
            }
            if self.scheduler.has_fresh() || !self.state.expandable.is_empty() {
                continue;
            }
            // Only now: a race may be won by a member whose result is stored.
            if self.scheduler.peek().is_none() {
                break;
            }
            while let Some(node) = self.scheduler.take() {
                self.would_run(node);
            }
        }
        let families = self.state.families.keys().map(|node| (*node, self.all_units(*node))).collect();
        let context = watched.map(|node| self.contexts.after(self.nodes.plan, node));
        let context = context.transpose().map_err(RunError::Internal)?.flatten();
        Ok((self.nodes, self.state.foreseen.unwrap_or_default(), families, context))
    }

    /// Whether nothing is to be run.
    pub(super) fn is_dry(&self) -> bool {
        self.state.foreseen.is_some()
    }

    /// The node would run, and succeed.
    fn would_run(&mut self, node: NodeId) {
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.runs.push(node);
        }
        self.scheduler.done(node, Outcome::Ran);
        self.item_settled(node, Outcome::Ran, None);
    }

    /// Some of the node's items would run, so that its own result is not known.
    pub(super) fn would_run_as_list(&mut self, node: NodeId) {
        self.scheduler.done(node, Outcome::Ran);
        self.item_settled(node, Outcome::Ran, None);
    }

    pub(super) fn is_stored(&mut self, node: NodeId, record: &Record) {
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.stored.push((node, Duration::from_micros(record.duration_us)));
        }
    }

    pub(super) fn would_skip(&mut self, node: NodeId) {
        if let Some(foreseen) = &mut self.state.foreseen {
            foreseen.skipped.push(node);
        }
    }
}
