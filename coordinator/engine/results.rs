//! Results that later nodes read: kept at hand while there are readers, and put into their messages.

use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::{Param, Task};
use forkyard_shared::value::INLINE_MAX_BYTES;

use super::core::Engine;
use crate::key::{ResultId, working_dir};
use crate::plan::Arg;
use crate::store::{Layout, Place, Record};

/// A finished node's result, for the nodes that read it.
pub(super) struct Held {
    pub(super) id: ResultId,
    /// Where it is in the store, once that is known.
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
        bytes: Option<Vec<u8>>,
        record: Option<Record>,
    ) {
        let Some(readers) = self.state.readers.get(&node) else { return };
        self.state.results.insert(node, Held { id, record, readers: *readers });
        if let Some(bytes) = bytes {
            self.state.cache.put(node, bytes);
            self.shrink_cache();
        }
    }

    /// Forgets bytes that can be read again, until the rest fits. What is not durable yet is made so, if that is
    /// what it takes.
    fn shrink_cache(&mut self) {
        for attempt in 0..3 {
            let results = &self.state.results;
            let durable = |node| results.get(&node).is_some_and(|held| held.record.is_some());
            if self.state.cache.shrink(durable) {
                return;
            }
            if attempt == 1 {
                self.writer.flush();
            }
            self.take_placed();
        }
    }

    /// Notes where results are in the store that became durable.
    pub(super) fn take_placed(&mut self) {
        for (node, record) in self.writer.placed() {
            if let Some(held) = self.state.results.get_mut(&node).filter(|held| held.readers > 0) {
                held.record = Some(record);
            }
        }
    }

    /// `node` will not read results any more: those without further readers are forgotten.
    pub(super) fn forget_read(&mut self, node: NodeId) {
        for producer in self.plan.results_of(node) {
            if let Some(result) = self.state.results.get_mut(&producer) {
                result.readers = result.readers.saturating_sub(1);
                if result.readers == 0 {
                    result.record = None;
                    self.state.cache.forget(producer);
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
        let mut artifact_results = Vec::new();
        for producer in self.plan.detail(node).map_or(&[][..], |detail| &detail.artifact_results) {
            artifact_results.push((self.plan.name(*producer).to_string(), self.result_param(*producer)?));
        }
        let artifacts = self.plan.artifacts_of(node).to_vec();
        Ok(Task {
            node,
            op: self.plan.ops[node.index()],
            attempt: self.scheduler.attempt(node),
            params,
            artifacts,
            artifact_results,
            plain: self.layout == Layout::Sqlite || self.state.read_as_files.contains(&node),
        })
    }

    fn result_param(&mut self, producer: NodeId) -> Result<Param, NodeId> {
        let held = self.state.results.get(&producer).expect("BUG: a node before the results that it reads");
        let ResultId { kind, digest } = held.id;
        if let Some(bytes) = self.state.cache.get(producer) {
            return Ok(Param::Inline(kind, bytes));
        }
        let read = match &held.record {
            // A large result of this run.
            None => return Ok(Param::Blob { kind, digest }),
            Some(record) if record.len > INLINE_MAX_BYTES as u64 || record.place == Place::File => {
                self.reader.lend(record).map(|()| Param::Blob { kind, digest })
            }
            Some(record) => self.reader.read(record).map(|bytes| Param::Inline(kind, bytes)),
        };
        match read {
            Ok(param) => {
                if let Param::Inline(_, bytes) = &param {
                    self.state.cache.put(producer, bytes.clone());
                    self.shrink_cache();
                }
                Ok(param)
            }
            Err(error) => {
                self.report.say(&format!("{error}; node {} runs again", self.plan.name(producer)));
                Err(producer)
            }
        }
    }
}
