//! The registry of ops that `init` hands to every process. It is made before the zygote is forked, so that
//! coordinator and workers hold the same one and an [`OpId`] is enough to name an op in a message.

use forkyard_shared::ids::OpId;

use crate::op::Op;

/// The ops that a program knows, by name.
pub struct Ops {
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    version: Option<u32>,
    op: Box<dyn Op + Send + Sync>,
}

impl Ops {
    /// The ops that come with Forkyard.
    pub fn standard() -> Ops {
        crate::ops::standard()
    }

    pub(crate) fn empty() -> Ops {
        Ops { entries: Vec::new() }
    }

    /// Adds an op whose version is the build of the executable: every rebuild runs its nodes anew.
    ///
    /// # Panics
    /// When an op of this name is there already.
    pub fn op(self, name: &str, op: impl Op + Send + Sync + 'static) -> Ops {
        self.add(name, None, op)
    }

    /// Adds an op with a version of its own: raise it when the op's results change.
    ///
    /// # Panics
    /// When an op of this name is there already.
    pub fn versioned(self, name: &str, version: u32, op: impl Op + Send + Sync + 'static) -> Ops {
        self.add(name, Some(version), op)
    }

    fn add(mut self, name: &str, version: Option<u32>, op: impl Op + Send + Sync + 'static) -> Ops {
        assert!(self.find(name).is_none(), "op {name} is registered twice");
        self.entries.push(Entry { name: name.into(), version, op: Box::new(op) });
        self
    }

    /// The op of this name.
    pub fn find(&self, name: &str) -> Option<OpId> {
        self.entries.iter().position(|entry| entry.name == name).map(OpId::new)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name.as_str())
    }

    /// All ids.
    pub fn ids(&self) -> impl Iterator<Item = OpId> + use<> {
        (0..self.entries.len()).map(OpId::new)
    }

    /// The name of an op.
    pub fn name(&self, op: OpId) -> &str {
        &self.entries[op.index()].name
    }

    /// Its declared version; `None`: the build of the executable.
    pub fn version(&self, op: OpId) -> Option<u32> {
        self.entries[op.index()].version
    }

    /// The op itself.
    pub fn get(&self, op: OpId) -> &dyn Op {
        &*self.entries[op.index()].op
    }
}
