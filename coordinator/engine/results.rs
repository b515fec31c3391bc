//! Results that later nodes read: kept at hand while there are readers, and put into their messages.

use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::{Param, Task};

use super::core::Engine;
use crate::key::{ResultId, working_dir};
use crate::plan::Arg;
use crate::store::{Place, Record};

/// A finished node's result, for the nodes that read it.
pub(super) struct Held {
    pub(super) id: ResultId,
    pub(super) len: u64,
    /// Its bytes if they are at hand; else they are in the store.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) record: Option<Record>,
    /// Nodes that may still read it.
    pub(super) readers: usize,
}

impl Engine<'_> {
    /// Keeps a result for the nodes that read it.
    pub(super) fn keep(
        &mut self,
        node: NodeId,
        id: ResultId,
        len: u64,
        bytes: Option<Vec<u8>>,
        record: Option<Record>,
    ) {
        if let Some(readers) = self.state.readers.get(&node) {
            self.state.results.insert(node, Held { id, len, bytes, record, readers: *readers });
        }
    }

    /// `node` will not read results any more: those without further readers are forgotten.
    pub(super) fn forget_read(&mut self, node: NodeId) {
        for producer in self.plan.results_of(node) {
            if let Some(result) = self.state.results.get_mut(&producer) {
                result.readers = result.readers.saturating_sub(1);
                if result.readers == 0 {
                    result.bytes = None;
                }
            }
        }
    }

    /// The message for a node, or the node whose result it reads and which has to be computed anew.
    pub(super) fn task(&mut self, node: NodeId) -> Result<Task, NodeId> {
        let mut params = Vec::new();
        if let Some(detail) = self.plan.detail(node) {
            for (name, arg) in &detail.params {
                let param = match arg {
                    Arg::Json(text) => Param::Json(text.clone()),
                    Arg::Result(producer) => self.result_param(*producer)?,
                };
                params.push((name.clone(), param));
            }
            if self.ops.get(self.plan.ops[node.index()]).signature().runs_command() {
                let cwd = working_dir(detail).to_string_lossy().into_owned();
                let cwd = Param::Json(serde_json::Value::String(cwd).to_string());
                match params.binary_search_by(|(name, _)| name.as_str().cmp("cwd")) {
                    Ok(at) => params[at].1 = cwd,
                    Err(at) => params.insert(at, ("cwd".into(), cwd)),
                }
            }
        }
        let artifacts = self.plan.artifacts_of(node).to_vec();
        Ok(Task {
            node,
            op: self.plan.ops[node.index()],
            attempt: self.scheduler.attempt(node),
            params,
            artifacts,
        })
    }

    fn result_param(&mut self, producer: NodeId) -> Result<Param, NodeId> {
        let result =
            self.state.results.get_mut(&producer).expect("BUG: a node before the results that it reads");
        let ResultId { kind, digest } = result.id;
        if let Some(bytes) = &result.bytes {
            return Ok(Param::Inline(kind, bytes.clone()));
        }
        match &result.record {
            None => Ok(Param::Blob { kind, digest, len: result.len }),
            Some(record) if record.place == Place::File => Ok(Param::Blob { kind, digest, len: result.len }),
            Some(record) => match self.reader.read(record) {
                Ok(bytes) => {
                    result.bytes = Some(bytes.clone());
                    Ok(Param::Inline(kind, bytes))
                }
                Err(error) => {
                    self.report.say(&format!("{error}; node {} runs again", self.plan.name(producer)));
                    Err(producer)
                }
            },
        }
    }
}
