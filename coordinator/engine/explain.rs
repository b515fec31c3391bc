//! Noting what the keys of nodes were made of that ran, for `why`.

use forkyard_shared::ids::NodeId;

use super::core::Engine;
use crate::fields::KeyFields;
use crate::plan::Detail;

impl Engine<'_> {
    /// Of a plain node there is nothing to note that its op and its needs do not say.
    pub(super) fn note_fields(&mut self, node: NodeId) {
        if !self.writer.keeps() || self.nodes.detail(node).is_none_or(Detail::adds_nothing) {
            return;
        }
        let fields =
            self.walk_key(node, |keys, nodes, said, result| KeyFields::of(keys, nodes, node, said, result));
        if let Some(fields) = fields {
            self.writer.explain(&fields);
        }
    }
}
