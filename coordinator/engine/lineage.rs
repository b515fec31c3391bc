//! `history` and `last_output`: what a node's ancestors returned, the latest by rank. Bounded by age and never by
//! name; whether a node may run is never asked of it.

use std::collections::HashMap;

use forkyard_shared::context::Rank;
use forkyard_shared::ids::NodeId;
use forkyard_shared::value::{Kind, NULL_DIGEST};
use serde_json::Value;

use super::core::Engine;
use super::evaluate::Unknown;
use crate::expr::{Scope, Uses};
use crate::plan::Flow;

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
        // An item sees what its node sees, and the one that it follows.
        let of = self.nodes.item(node).map(|item| self.starts_from(item.of));
        of.into_iter().flatten().for_each(&mut from);
        self.starts_from(node).into_iter().for_each(&mut from);
        lineage
    }

    /// A node is settled: it is an ancestor now, if it returned something.
    pub(super) fn hand_on_lineage(&mut self, node: NodeId, is_done: bool) {
        if !self.state.lineages.are_used {
            return;
        }
        let is_item = self.nodes.item(node).is_some();
        if is_item && !self.is_seen_as_item(node) {
            return;
        }
        let mut lineage = self.lineage(node);
        if let Some(leader) = self.nodes.flow(node).and_then(Flow::each).filter(|_| !is_item)
            && let Some(handed) = self.state.lineages.handed.get(&leader)
        {
            lineage.add(handed);
        }
        if is_done {
            let rank = self.rank(node).unwrap_or(Rank(0));
            let result = self.state.results.get(&node).map(|held| held.id);
            let is_null = result.is_none_or(|id| id.kind == Kind::Json && id.digest == NULL_DIGEST);
            let last = (!is_null).then_some((rank, node));
            lineage.add(&Lineage { recent: vec![(rank, node)], last });
        }
        // Nobody looks at its items any more, unless others follow them.
        if !is_item && !self.state.followers.contains_key(&node) {
            for item in self.all_units(node) {
                self.state.lineages.handed.remove(&item);
            }
        }
        self.state.lineages.handed.insert(node, lineage);
    }

    /// Whether another node looks at this item alone: one that follows it, or the next iteration.
    pub(super) fn is_seen_as_item(&self, node: NodeId) -> bool {
        let of = self.nodes.declared(node);
        !self.is_list(of) || self.state.followers.contains_key(&of)
    }

    /// Sets `history` and `last_output`.
    pub(super) fn set_lineage(
        &mut self,
        node: NodeId,
        uses: &Uses,
        scope: &mut Scope,
    ) -> Result<(), Unknown> {
        let Lineage { recent, last } = self.lineage(node);
        if uses.names.contains("last_output") {
            let last = match last {
                Some((_, ancestor)) => self.result_json(ancestor)?,
                None => b"null".to_vec(),
            };
            scope.set("last_output", &last)?;
        }
        if !uses.names.contains("history") {
            return Ok(());
        }
        let mut history = vec![b'['];
        for (at, (_, ancestor)) in recent.into_iter().enumerate() {
            if at > 0 {
                history.push(b',');
            }
            let id = Value::from(&*self.nodes.name(ancestor)).to_string();
            history.extend(format!("{{\"node\":{id},\"result\":").bytes());
            match self.result_json(ancestor) {
                Ok(json) => history.extend(json),
                // Nobody has asked for this one: bytes, or far too long.
                Err(Unknown::Wrong(_)) => history.extend(b"null"),
                Err(gone) => return Err(gone),
            }
            history.push(b'}');
        }
        history.push(b']');
        Ok(scope.set("history", &history)?)
    }
}
