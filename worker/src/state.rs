//! The state as one task sees it: what its node's ancestors wrote, and on top of that what it wrote itself. Reads
//! go straight to shared memory; writes leave with the result, and nobody sees them before.

use std::cell::RefCell;
use std::collections::BTreeMap;

use forkyard_shared::arena::{ArenaError, ArenaReader};
use forkyard_shared::context::{Context, Snapshot};
use forkyard_shared::protocol::{Reads, STATE_MAX_BYTES, Writes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::op::Failed;

/// The state that a task reads and writes: JSON values by key.
pub struct State<'a> {
    snapshot: Snapshot<'a>,
    reads: &'a Reads,
    writes: RefCell<BTreeMap<String, Option<Vec<u8>>>>,
}

impl<'a> State<'a> {
    pub(crate) fn new(arena: &'a ArenaReader, context: u64, reads: &'a Reads) -> State<'a> {
        let snapshot = Snapshot { arena, context: Context(context) };
        State { snapshot, reads, writes: RefCell::default() }
    }

    /// The value of a key; `None` if no ancestor set it, or the last one to touch it removed it.
    ///
    /// # Errors
    /// When the node does not say that it reads this key (`reads = ["key"]` or `reads = "state"`), or the value is
    /// no `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failed> {
        if let Some(own) = self.writes.borrow().get(key) {
            return own.as_deref().map(|json| parse(key, json)).transpose();
        }
        self.json(key)?.map(|json| parse(key, json)).transpose()
    }

    /// The JSON text of a key, as it was when the task began.
    pub(crate) fn json(&self, key: &str) -> Result<Option<&'a [u8]>, Failed> {
        let declared = match self.reads {
            Reads::All => true,
            Reads::Keys(keys) => keys.iter().any(|known| known == key),
            Reads::Nothing => false,
        };
        if !declared {
            return Err(Failed::new(format!(
                "the node reads the state's `{key}` and does not say so: reads = [\"{key}\"], or reads = \"state\" for all of it"
            )));
        }
        self.snapshot.get(key).map_err(broken)
    }

    /// Calls `f` with every key that is set and its JSON text. Each key comes once, in an order that depends on what
    /// is visible and on nothing else.
    ///
    /// # Errors
    /// When the node does not say `reads = "state"`.
    pub fn each(&self, mut f: impl FnMut(&str, &[u8])) -> Result<(), Failed> {
        if !matches!(self.reads, Reads::All) {
            return Err(Failed::new("the node reads the whole state and does not say so: reads = \"state\""));
        }
        let writes = self.writes.borrow();
        let mut hides = false;
        for key in writes.keys() {
            hides |= self.snapshot.get(key).map_err(broken)?.is_some();
        }
        self.snapshot
            .iter(|key, json| {
                if !hides || !writes.contains_key(key) {
                    f(key, json);
                }
            })
            .map_err(broken)?;
        for (key, json) in &*writes {
            if let Some(json) = json {
                f(key, json);
            }
        }
        Ok(())
    }

    /// Sets a key, for this task and, once it has succeeded, for the nodes that need its node.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn set(&self, key: &str, value: &impl Serialize) -> Result<(), Failed> {
        self.writes.borrow_mut().insert(key.into(), Some(serde_json::to_vec(value)?));
        Ok(())
    }

    /// Removes a key, likewise.
    pub fn remove(&self, key: &str) {
        self.writes.borrow_mut().insert(key.into(), None);
    }

    /// Everything that was written.
    pub(crate) fn take_writes(&self) -> Writes {
        self.writes.take().into_iter().collect()
    }
}

/// The writes, if they are not too many.
pub(crate) fn within_limits(writes: Writes) -> Result<Writes, Failed> {
    let len = |(key, json): &(String, Option<Vec<u8>>)| key.len() + json.as_ref().map_or(0, Vec::len) + 8;
    let bytes: usize = writes.iter().map(len).sum();
    if bytes > STATE_MAX_BYTES {
        return Err(Failed::new(format!(
            "the node writes {bytes} bytes of state, and {STATE_MAX_BYTES} is the most: large things belong into its result"
        )));
    }
    Ok(writes)
}

fn parse<T: DeserializeOwned>(key: &str, json: &[u8]) -> Result<T, Failed> {
    serde_json::from_slice(json).map_err(|error| Failed::new(format!("the state's `{key}`: {error}")))
}

fn broken(error: ArenaError) -> Failed {
    Failed::new(format!("BUG: read the state: {error}"))
}
