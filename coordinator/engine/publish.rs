//! `publish`: variables that a node sets by its result, worked out anew each time, also for a stored result.

use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::Writes;

use super::core::Engine;
use super::evaluate::Unknown;

impl Engine<'_> {
    /// What a finished node writes: what its op wrote, and what it publishes. Items publish by their node, as one
    /// list.
    pub(super) fn publish(&mut self, node: NodeId, mut writes: Writes) -> Result<Writes, Unknown> {
        let declared = self.nodes.declared(node);
        let Some(flow) = self.nodes.flow(declared).filter(|flow| !flow.publish.is_empty()) else {
            return Ok(writes);
        };
        let is_item = declared != node;
        if flow.repeat.is_some() && is_item {
            return Ok(writes);
        }
        if flow.fan.is_some() && !is_item {
            writes.extend(self.published_lists(node, flow.publish.iter().map(|(name, _)| name)));
            return Ok(writes);
        }
        let mut published = Vec::with_capacity(flow.publish.len());
        for (name, value) in &flow.publish {
            let uses = value.uses();
            let mut scope = self.scope(node, &uses)?;
            if uses.names.contains("result") {
                let json = self.own_result(self.source(node))?;
                scope.set("result", &json)?;
            }
            let json = value.json(&scope).map_err(|why| format!("publish {name}: {why}"))?;
            published.push((name.clone(), Some(json.into_bytes())));
        }
        if is_item {
            self.put_published(node, published.into_iter().map(|(_, json)| json).collect());
        } else {
            writes.extend(published);
        }
        Ok(writes)
    }
}
