//! Results that later nodes read: kept at hand while there are readers, and put into their messages.

use std::time::Duration;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::{Param, Task};
use forkyard_shared::sink::{Body, Sink};
use forkyard_shared::value::{INLINE_MAX_BYTES, Kind};

use super::core::Engine;
use super::evaluate::Unknown;
use crate::key::{ResultId, working_dir};
use crate::plan::Arg;
use crate::store::{Layout, NewResult, NewValue, Place, Record};

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
    Record(Box<Record>),
}

/// Why a result cannot be put into a message.
pub(super) enum Unread {
    /// It is gone: this node has to compute it anew.
    Gone(NodeId),
    /// There is no room to make it readable.
    Full(String),
    /// It cannot be what the node wants.
    Wrong(String),
}

impl Engine<'_> {
    /// Keeps a result for the nodes that read it.
    pub(super) fn keep(&mut self, node: NodeId, id: ResultId, bytes: Option<Vec<u8>>, at: At) {
        if self.is_submitted(node) {
            return self.keep_answer(node, id, bytes, at);
        }
        let readers = self.readers(node);
        if self.nodes.item(node).is_some() {
            self.state.item_results.insert(node, id);
        }
        if readers == 0 {
            return;
        }
        self.state.results.insert(node, Held { id, at, readers });
        if let Some(bytes) = bytes {
            self.state.cache.put(node, bytes);
            self.shrink_cache();
        }
    }

    /// Forgets bytes that can be read again, until the rest fits. What is not durable yet is made so, if that is
    /// what it takes.
    pub(super) fn shrink_cache(&mut self) {
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
                    held.at = if by_key { At::Key } else { At::Record(Box::new(record.clone())) };
                }
            }
        }
    }

    /// `node` will not read results any more: those without further readers are forgotten.
    pub(super) fn forget_read(&mut self, node: NodeId) {
        if self.nodes.item(node).is_some() {
            if let Some(leader) = self.followed(node) {
                self.forget(leader);
            }
            return;
        }
        for producer in self.nodes.results_of(node) {
            self.state.lists.remove(&producer);
            for unit in self.units(producer).unwrap_or_default().into_iter().flatten() {
                self.forget(unit);
            }
            let source = self.source(producer);
            if source != producer {
                self.forget(source);
            }
            self.forget(producer);
        }
    }

    pub(super) fn forget(&mut self, producer: NodeId) {
        if let Some(result) = self.state.results.get_mut(&producer) {
            result.readers = result.readers.saturating_sub(1);
            if result.readers == 0 {
                result.at = At::Key;
                self.state.cache.forget(producer);
            }
        }
    }

    /// The nodes whose results a node has read, items one by one.
    pub(super) fn read_by(&self, node: NodeId) -> Vec<NodeId> {
        let mut read = Vec::from_iter(self.followed(node));
        for producer in self.nodes.results_of(node) {
            read.extend(self.units(producer).unwrap_or_default().into_iter().flatten());
            read.push(self.source(producer));
        }
        read
    }

    /// How many nodes read what a node returns.
    pub(super) fn readers(&self, node: NodeId) -> usize {
        let declared = self.nodes.declared(node);
        let readers = self.state.readers.get(&declared).copied().unwrap_or(0);
        let followers =
            if declared == node { 0 } else { self.state.followers.get(&declared).map_or(0, Vec::len) };
        let looked_back = self.state.lineages.are_used && (declared == node || self.is_seen_as_item(node));
        readers + followers + usize::from(looked_back)
    }

    /// The message for a node.
    pub(super) fn task(&mut self, node: NodeId) -> Result<Task, Unread> {
        let mut params = Vec::new();
        if let Some(detail) = self.nodes.detail(node) {
            if !detail.is_known() && self.state.resolved(node).is_none() {
                // It runs again because its result was lost.
                self.resolve(node).map_err(|unknown| match unknown {
                    Unknown::Wrong(why) => Unread::Wrong(why),
                    Unknown::Gone(producer) => Unread::Gone(producer),
                })?;
            }
            let resolved = self.state.take_resolved(node);
            let said = resolved.as_ref().map_or(&detail.params, |resolved| &resolved.params);
            let in_python = detail.call.is_some();
            let mut read = || {
                for (name, arg) in said {
                    let param = match arg {
                        Arg::Json(text) => Param::Json(text.clone()),
                        Arg::Result(producer) => match in_python {
                            true => self.result_for_python(*producer)?,
                            false => self.result_param(*producer)?,
                        },
                        Arg::EachResult | Arg::Template(_) => {
                            unreachable!("BUG: a task before its parameters")
                        }
                    };
                    params.push((name.clone(), param));
                }
                Ok(())
            };
            let read = read();
            let runs_command = self.ops.get(self.nodes.op(node)).signature().runs_command();
            let cwd = runs_command.then(|| working_dir(detail, said));
            if let Some(resolved) = resolved {
                self.state.put_resolved(node, resolved);
            }
            read?;
            if let Some(call) = &detail.call
                && let Ok(at) = params.binary_search_by(|(name, _)| name.as_str().cmp("call"))
            {
                // Where it was found.
                let target = serde_json::Value::from(call.target.as_str()).to_string();
                params[at].1 = Param::Json(target);
            }
            if let Some(cwd) = cwd {
                let cwd = cwd.to_string_lossy().into_owned();
                let cwd = Param::Json(serde_json::Value::String(cwd).to_string());
                match params.binary_search_by(|(name, _)| name.as_str().cmp("cwd")) {
                    Ok(at) => params[at].1 = cwd,
                    Err(at) => params.insert(at, ("cwd".into(), cwd)),
                }
            }
        }
        let mut artifact_results = Vec::new();
        for producer in self.nodes.detail(node).map_or(&[][..], |detail| &detail.artifact_results) {
            artifact_results.push((self.nodes.name(*producer).to_string(), self.result_param(*producer)?));
        }
        let artifacts = self.nodes.artifacts(node).to_vec();
        let (context, reads) = self.shown(node);
        Ok(Task {
            context,
            reads,
            node,
            op: self.nodes.op(node),
            attempt: self.state.attempts.number(node),
            params,
            artifacts,
            artifact_results,
            alone: self.state.suspects.contains(&node)
                || self.nodes.detail(node).is_some_and(|detail| detail.timeout.is_some()),
            plain: self.layout == Layout::Sqlite || self.state.read_as_files.contains(&node),
        })
    }

    /// The same for a Python function, which takes items' results that are no JSON one by one.
    fn result_for_python(&mut self, producer: NodeId) -> Result<Param, Unread> {
        let units = self.units(producer).filter(|_| self.is_done(producer)).unwrap_or_default();
        let is_json = |unit: &NodeId| {
            let held = self.state.results.get(&self.source(*unit));
            held.is_none_or(|held| !matches!(held.id.kind, Kind::Bytes | Kind::Array))
        };
        if units.iter().flatten().all(is_json) {
            return self.result_param(producer);
        }
        let null = || Ok(Param::Json("null".into()));
        let one = |unit: Option<NodeId>| unit.map_or_else(null, |unit| self.result_param(unit));
        units.into_iter().map(one).collect::<Result<Vec<_>, _>>().map(Param::List)
    }

    fn result_param(&mut self, producer: NodeId) -> Result<Param, Unread> {
        if self.has_none(producer) {
            return Ok(Param::Json("null".into()));
        }
        if !self.is_done(producer) {
            return Err(Unread::Gone(producer));
        }
        if self.is_list(producer) {
            return match self.list(producer) {
                Ok(list) => Ok(list),
                Err(Unknown::Gone(producer)) => Err(Unread::Gone(producer)),
                Err(Unknown::Wrong(why)) => Err(Unread::Wrong(why)),
            };
        }
        let producer = self.source(producer);
        let held = self.state.results.get(&producer).expect("BUG: a node before the results that it reads");
        let ResultId { kind, digest } = held.id;
        if let Some(bytes) = self.state.cache.get(producer) {
            return Ok(Param::Inline(kind, bytes));
        }
        let found;
        let record = match &held.at {
            At::Unknown => return Ok(Param::Blob { kind, digest }),
            At::Record(record) => Some(&**record),
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

    /// The results of a node's items as one list: written out once, and then like any other result.
    fn list(&mut self, node: NodeId) -> Result<Param, Unknown> {
        if let Some(list) = self.state.lists.get(&node) {
            return Ok(list.clone());
        }
        if let Some(record) = self.reader.lookup(self.keys.of(node))
            && self.reader.lend(&record).is_ok()
        {
            let list = Param::Blob { kind: record.kind, digest: record.digest };
            self.state.lists.insert(node, list.clone());
            return Ok(list);
        }
        let prefix = format!("{}-list-{}", std::process::id(), node.0);
        let plain = self.layout == Layout::Sqlite || self.state.read_as_files.contains(&node);
        let sink = Sink::new(&self.dir.tmp_dir(), &prefix, INLINE_MAX_BYTES, !plain);
        let mut sink = sink.at_most(self.nodes.plan.settings.max_result);
        self.write_list(node, &mut sink)?;
        let io = |error: std::io::Error| {
            format!("write the list of results of {}: {error}", self.nodes.name(node))
        };
        let list = match sink.finish().map_err(io)? {
            Body::Inline { bytes, .. } => Param::Inline(Kind::Json, bytes),
            Body::File { name, len, digest, packed } => {
                self.adopt_blob(&name, digest, packed).map_err(io)?;
                let (key, kind) = (self.keys.of(node), Kind::Json);
                let (value, duration) = (NewValue::File { len }, Duration::ZERO);
                let (artifacts, extra) = (Vec::new(), Vec::new());
                self.writer.put(NewResult {
                    node,
                    key,
                    kind,
                    digest,
                    value,
                    duration,
                    artifacts,
                    wanted: false,
                    extra,
                });
                Param::Blob { kind, digest }
            }
        };
        self.state.lists.insert(node, list.clone());
        Ok(list)
    }

    /// The list of this digest is damaged: it goes. False if no list has it.
    pub(super) fn forget_list(&mut self, digest: Digest) -> bool {
        let damaged = |param: &Param| matches!(param, Param::Blob { digest: of, .. } if *of == digest);
        let before = self.state.lists.len();
        self.state.lists.retain(|_, list| !damaged(list));
        let found = self.state.lists.len() < before;
        if found {
            self.dir.quarantine(self.layout, digest).ok();
        }
        found
    }

    pub(super) fn gone(&self, producer: NodeId, why: &str) -> Unread {
        self.report.say(&format!("{why}; node {} runs again", self.nodes.name(producer)));
        Unread::Gone(producer)
    }
}
