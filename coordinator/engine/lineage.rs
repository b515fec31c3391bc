//! `history` and `last_output`: what a node's ancestors returned, the latest by rank. Bounded by age and never by
//! name; whether a node may run is never asked of it.

use std::collections::HashMap;

use forkyard_shared::context::Rank;
use forkyard_shared::ids::NodeId;
use forkyard_shared::value::{Kind, NULL_DIGEST};
use serde_json::Value;

use super::core::Engine;
use super::evaluate::Unknown;
use crate::expr::Scope;

/// Ancestors in a history.
const HISTORY: usize = 20;

/// The ancestors of nodes, as far as somebody may ask for them.
#[derive(Default)]
pub(super) struct Lineages {
    /// Whether anybody asks.
    pub are_used: bool,
    /// What nodes hand on.
    handed: HashMap<NodeId, Lineage>,
}

/// The latest ancestors, the oldest first.
#[derive(Clone, Default)]
struct Lineage {
    recent: Vec<(Rank, NodeId)>,
    /// The latest whose result is not null.
    last: Option<(Rank, NodeId)>,
}

impl Lineage {
    fn add(&mut self, other: &Lineage) {
        self.recent.extend(&other.recent);
        self.recent.sort_unstable();
        self.recent.dedup();
        let old = self.recent.len().saturating_sub(HISTORY);
        self.recent.drain(..old);
        self.last = self.last.max(other.last);
    }
}

impl Engine<'_> {
    fn lineage(&self, node: NodeId) -> Lineage {
        let mut lineage = Lineage::default();
        let mut from = |node: NodeId| {
            if let Some(handed) = self.state.lineages.handed.get(&node) {
                lineage.add(handed);
            }
        };
        self.nodes.needs(node).for_each(&mut from);
        self.followed(node).into_iter().for_each(&mut from);
        self.iteration_before(node).into_iter().for_each(&mut from);
        lineage
    }

    /// A node is settled: it is an ancestor now, if it returned something.
    pub(super) fn hand_on_lineage(&mut self, node: NodeId, is_done: bool) {
        if !self.state.lineages.are_used {
            return;
        }
        let mut lineage = self.lineage(node);
        if is_done {
            let rank = self.contexts.rank(&self.nodes, node).unwrap_or(Rank(0));
            let result = self.state.results.get(&node).map(|held| held.id);
            let is_null = result.is_none_or(|id| id.kind == Kind::Json && id.digest == NULL_DIGEST);
            let last = (!is_null).then_some((rank, node));
            lineage.add(&Lineage { recent: vec![(rank, node)], last });
        }
        self.state.lineages.handed.insert(node, lineage);
    }

    /// Sets `history` and `last_output`.
    pub(super) fn set_lineage(&mut self, node: NodeId, scope: &mut Scope) -> Result<(), Unknown> {
        let Lineage { recent, last } = self.lineage(node);
        let mut history = vec![b'['];
        for (at, (_, ancestor)) in recent.into_iter().enumerate() {
            if at > 0 {
                history.push(b',');
            }
            let id = Value::from(&*self.nodes.name(ancestor)).to_string();
            history.extend(format!("{{\"node\":{id},\"result\":").bytes());
            history.extend(self.result_json(ancestor)?);
            history.push(b'}');
        }
        history.push(b']');
        scope.set("history", &history)?;
        let last = match last {
            Some((_, ancestor)) => self.result_json(ancestor)?,
            None => b"null".to_vec(),
        };
        Ok(scope.set("last_output", &last)?)
    }
}
