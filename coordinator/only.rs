//! Which nodes a run is about, where it is not all of them.

use std::collections::HashSet;

use forkyard_shared::ids::NodeId;

use crate::plan::Plan;
use crate::run::{RunError, nodes_named};

/// Nodes that were asked for; what they need comes with them.
#[derive(Clone)]
pub(crate) enum Only {
    All,
    /// By their ids.
    Named(Vec<String>),
    /// By its id, or by that of one of its items.
    About(String),
    /// These.
    These(HashSet<NodeId>),
    /// By what an earlier run called them, items as `id[index]`. The manifest may have changed since.
    Earlier(Vec<String>),
}

impl Only {
    /// Those named, or all if none is.
    pub fn named(names: &[String]) -> Only {
        if names.is_empty() { Only::All } else { Only::Named(names.to_vec()) }
    }

    /// The nodes; nothing means all.
    pub fn nodes(&self, plan: &Plan) -> Result<Option<HashSet<NodeId>>, RunError> {
        match self {
            Only::All => Ok(None),
            Only::Named(names) => nodes_named(plan, names).map(Some),
            Only::These(nodes) => Ok(Some(nodes.clone())),
            Only::About(name) => match earlier(plan, name) {
                Some(node) => Ok(Some(HashSet::from([node]))),
                None => nodes_named(plan, std::slice::from_ref(name)).map(Some),
            },
            Only::Earlier(names) => {
                let nodes: HashSet<NodeId> = names.iter().filter_map(|name| earlier(plan, name)).collect();
                if nodes.is_empty() {
                    return Err(RunError::Usage(format!(
                        "{} has none of the nodes that did not succeed any more; run it without --failed",
                        plan.path.display()
                    )));
                }
                Ok(Some(nodes))
            }
        }
    }
}

/// The node of a name, or the one of whose items it is the name.
fn earlier(plan: &Plan, name: &str) -> Option<NodeId> {
    let of_item = || plan.names.find(item_of(name)?);
    plan.names.find(name).or_else(of_item).map(NodeId)
}

/// The node's id in `id[index]`.
pub(crate) fn item_of(name: &str) -> Option<&str> {
    let (node, index) = name.strip_suffix(']')?.rsplit_once('[')?;
    index.parse::<u32>().ok().map(|_| node)
}
