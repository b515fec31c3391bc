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
    pub(super) at: At,
    /// Nodes that may still read it.
    pub(super) readers: usize,
}

/// Where a result can be read again.
pub(super) enum At {
    /// Nowhere yet, unless it is large: then it is a file already.
    Unknown,
    /// Under its node's key.
    Key,
    /// There.
    Record(Record),
}

/// Why a result cannot be put into a message.
pub(super) enum Unread {
    /// It is gone: this node has to compute it anew.
    Gone(NodeId),
    /// There is no room to make it readable.
    Full(String),
}

impl Engine<'_> {
    /// Keeps a result for the nodes that read it.
    pub(super) fn keep(&mut self, node: NodeId, id: ResultId, bytes: Option<Vec<u8>>, at: At) {
        let Some(readers) = self.state.readers.get(&node) else { return };
        self.state.results.insert(node, Held { id, at, readers: *readers });
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
            let durable = |node| results.get(&node).is_some_and(|held| !matches!(held.at, At::Unknown));
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
            let same = self.state.same.remove(&node).unwrap_or_default();
            for node in same.into_iter().chain([node]) {
                if let Some(held) = self.state.results.get_mut(&node).filter(|held| held.readers > 0) {
                    // Without a database a result is found by its key at once, and what stands with it may be long.
                    let by_key = self.layout == Layout::Filesystem;
                    held.at = if by_key { At::Key } else { At::Record(record.clone()) };
                }
            }
        }
    }

    /// `node` will not read results any more: those without further readers are forgotten.
    pub(super) fn forget_read(&mut self, node: NodeId) {
        for producer in self.plan.results_of(node) {
            if let Some(result) = self.state.results.get_mut(&producer) {
                result.readers = result.readers.saturating_sub(1);
                if result.readers == 0 {
                    result.at = At::Key;
                    self.state.cache.forget(producer);
                }
            }
        }
    }

    /// The message for a node.
    pub(super) fn task(&mut self, node: NodeId) -> Result<Task, Unread> {
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

    fn result_param(&mut self, producer: NodeId) -> Result<Param, Unread> {
        let held = self.state.results.get(&producer).expect("BUG: a node before the results that it reads");
        let ResultId { kind, digest } = held.id;
        if let Some(bytes) = self.state.cache.get(producer) {
            return Ok(Param::Inline(kind, bytes));
        }
        let found;
        let record = match &held.at {
            At::Unknown => return Ok(Param::Blob { kind, digest }),
            At::Record(record) => Some(record),
            At::Key => {
                found = self.reader.lookup(self.keys.of(producer));
                found.as_ref()
            }
        };
        let Some(record) = record else { return Err(self.gone(producer, "its result is gone")) };
        if record.len > INLINE_MAX_BYTES as u64 || record.place == Place::File {
            return match self.reader.lend(record) {
                Ok(()) => Ok(Param::Blob { kind, digest }),
                Err(error) if error.is_full() => Err(Unread::Full(error.to_string())),
                Err(error) => Err(self.gone(producer, &error.to_string())),
            };
        }
        match self.reader.read(record) {
            Ok(bytes) => {
                self.state.cache.put(producer, bytes.clone());
                self.shrink_cache();
                Ok(Param::Inline(kind, bytes))
            }
            Err(error) => Err(self.gone(producer, &error.to_string())),
        }
    }

    fn gone(&self, producer: NodeId, why: &str) -> Unread {
        self.report.say(&format!("{why}; node {} runs again", self.plan.name(producer)));
        Unread::Gone(producer)
    }
}
