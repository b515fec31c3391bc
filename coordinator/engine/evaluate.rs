//! Working out expressions: what they name is fetched, and nothing else.

use std::io::Write;

use forkyard_shared::blob;
use forkyard_shared::ids::NodeId;
use forkyard_shared::value::Kind;

use super::contexts::StateRead;
use super::core::{Engine, Progressing};
use super::family::Source;
use super::results::{At, Unread};
use crate::expr::{LIMIT_BYTES, Scope, Template, Uses};
use crate::manifest::kind_of;
use crate::nodes::Item;
use crate::plan::Arg;
use crate::schedule::State;
use crate::store::Outcome;

/// What a node says, once its expressions are worked out.
pub(super) struct Resolved {
    pub(super) params: Vec<(String, Arg)>,
    pub(super) salt: Option<String>,
    pub(super) state: Vec<StateRead>,
}

impl Progressing {
    /// What a node says, if that had to be worked out.
    pub(super) fn resolved(&self, node: NodeId) -> Option<&Resolved> {
        match &self.submissions {
            Some(submissions) => submissions.said(node),
            None => self.resolved.get(&node),
        }
    }

    /// Takes it away for a moment, or for good.
    pub(super) fn take_resolved(&mut self, node: NodeId) -> Option<Resolved> {
        match &mut self.submissions {
            Some(submissions) => submissions.said_mut(node).take(),
            None => self.resolved.remove(&node),
        }
    }

    pub(super) fn put_resolved(&mut self, node: NodeId, resolved: Resolved) {
        match &mut self.submissions {
            Some(submissions) => *submissions.said_mut(node) = Some(resolved),
            None => drop(self.resolved.insert(node, resolved)),
        }
    }
}

/// Why an expression has no value.
pub(super) enum Unknown {
    /// It is wrong.
    Wrong(String),
    /// The result of this node, which it reads, is gone.
    Gone(NodeId),
}

impl From<String> for Unknown {
    fn from(why: String) -> Unknown {
        Unknown::Wrong(why)
    }
}

impl Engine<'_> {
    /// Works out the parameters of a node.
    pub(super) fn resolve(&mut self, node: NodeId) -> Result<(), Unknown> {
        let Some(detail) = self.nodes.detail(node).filter(|detail| !detail.is_known()) else { return Ok(()) };
        if self.is_submitted(node) {
            // All but the state is known since it was submitted.
            let state = self.state_reads(node)?;
            if !state.is_empty() {
                let resolved = self.state.take_resolved(node);
                let resolved = resolved.expect("BUG: a submitted node without parameters");
                self.state.put_resolved(node, Resolved { state, ..resolved });
            }
            return Ok(());
        }
        let signature = self.ops.get(self.nodes.op(node)).signature();
        let mut params = Vec::with_capacity(detail.params.len());
        for (name, arg) in &detail.params {
            let arg = match arg {
                Arg::Json(text) => Arg::Json(text.clone()),
                Arg::Result(producer) => Arg::Result(*producer),
                Arg::EachResult => self.each_result(node),
                Arg::Template(template) => {
                    let json = self.json(node, template)?;
                    let fit = kind_of(signature, name).fit(json);
                    Arg::Json(fit.map_err(|why| format!("parameter {name}: {why}"))?)
                }
            };
            params.push((name.clone(), arg));
        }
        let salt = match &detail.salt {
            Some(Arg::Template(template)) => {
                let json = self.json(node, template)?;
                // Text as it is, without its quotes.
                Some(serde_json::from_str::<String>(&json).unwrap_or(json))
            }
            Some(Arg::Json(text)) => Some(text.clone()),
            _ => None,
        };
        let state = self.state_reads(node)?;
        self.state.put_resolved(node, Resolved { params, salt, state });
        Ok(())
    }

    /// The result of the item that this item follows.
    fn each_result(&self, node: NodeId) -> Arg {
        match self.followed(node).filter(|leader| self.is_done(*leader)) {
            Some(leader) => Arg::Result(leader),
            None => Arg::Json("null".into()),
        }
    }

    pub(super) fn is_done(&self, node: NodeId) -> bool {
        matches!(self.scheduler.state(node), State::Settled(outcome) if outcome.is_done())
    }

    /// Whether a node has ended without a result. (One that is not settled though others read it runs anew, because its
    /// result was lost. An item that then had none is in the list of its node all the same: the list is read whole, or not
    /// at all.)
    pub(super) fn has_none(&self, node: NodeId) -> bool {
        let ended = matches!(self.scheduler.state(node), State::Settled(outcome) if !outcome.is_done());
        ended && !self.is_lost_item(node)
    }

    /// Whether it is the item of a node, and its result has been lost.
    pub(super) fn is_lost_item(&self, node: NodeId) -> bool {
        self.state.losses.contains_key(&node) && self.nodes.item(node).is_some()
    }

    fn json(&mut self, node: NodeId, template: &Template) -> Result<String, Unknown> {
        let scope = self.scope(node, &template.uses())?;
        Ok(template.json(&scope)?)
    }

    /// Everything that these names stand for, as `node` sees it.
    pub(super) fn scope(&mut self, node: NodeId, uses: &Uses) -> Result<Scope, Unknown> {
        let mut scope = Scope::default();
        if let Some(Item { of, index }) = self.nodes.item(node) {
            scope.index(index);
            if uses.names.contains("item") {
                let item = self.item_json(node, of, index)?;
                scope.set("item", &item)?;
            }
        }
        for id in &uses.results {
            let producer = self.find(id)?;
            let json = self.result_json(producer)?;
            scope.result(id, &json)?;
        }
        for id in &uses.outcomes {
            let word = match self.scheduler.state(self.find(id)?) {
                State::Settled(Outcome::Ran | Outcome::Cached) => "done",
                State::Settled(outcome) => outcome.word(),
                _ if self.is_dry() => "unknown",
                // Its result was lost, and it runs again.
                _ => "done",
            };
            scope.outcome(id, word);
        }
        if uses.names.contains("history") || uses.names.contains("last_output") {
            self.set_lineage(node, uses, &mut scope)?;
        }
        self.set_vars(node, uses, &mut scope)?;
        Ok(scope)
    }

    fn find(&self, id: &str) -> Result<NodeId, Unknown> {
        let found = self.nodes.find(id);
        found.ok_or_else(|| Unknown::Wrong(format!("BUG: there is no node {id}")))
    }

    fn set_vars(&mut self, node: NodeId, uses: &Uses, scope: &mut Scope) -> Result<(), Unknown> {
        if uses.all_vars {
            for (name, json) in self.vars(node)? {
                scope.var(&name, &json)?;
            }
        }
        for name in &uses.vars {
            if let Some(json) = self.var(node, name)? {
                scope.var(name, &json)?;
            }
        }
        Ok(())
    }

    fn item_json(&mut self, node: NodeId, of: NodeId, index: u32) -> Result<Vec<u8>, Unknown> {
        let family = self.state.families.get(&of);
        match family.map(|family| &family.source) {
            Some(Source::Items(items, None)) => Ok(items.get(index).into_bytes()),
            Some(Source::Items(items, Some(chunk))) => Ok(items.chunk(index * chunk, *chunk).into_bytes()),
            Some(Source::Rows(artifact, rows, chunk)) => {
                let open = &self.artifacts[artifact.index()];
                let row = |row: u32| {
                    open.row(u64::from(row)).map_err(|error| {
                        Unknown::Wrong(format!("read row {row} of artifact {}: {error}", open.entry.name))
                    })
                };
                match chunk {
                    None => row(index),
                    Some(chunk) => {
                        let rows =
                            (index * chunk..(index * chunk).saturating_add(*chunk).min(*rows)).map(row);
                        let rows = rows.collect::<Result<Vec<_>, _>>()?;
                        Ok([&b"["[..], &rows.join(&b','), b"]"].concat())
                    }
                }
            }
            Some(Source::Each(_)) => match self.followed(node) {
                Some(leader) => self.result_json(leader),
                None => Ok(b"null".to_vec()),
            },
            Some(Source::Repeat) | None => Err(Unknown::Wrong("there is no `item` here".into())),
        }
    }

    /// A node's result as JSON: text is a string, no result is null, and items are a list.
    pub(super) fn result_json(&mut self, producer: NodeId) -> Result<Vec<u8>, Unknown> {
        if self.has_none(producer) {
            return Ok(b"null".to_vec());
        }
        if !self.is_done(producer) {
            return Err(Unknown::Gone(producer));
        }
        if self.is_list(producer) {
            let mut list = Bounded(Vec::new());
            return match self.write_list(producer, &mut list) {
                Err(Unknown::Wrong(_)) if list.0.len() > LIMIT_BYTES => Err(self.too_long(producer)),
                written => written.map(|()| list.0),
            };
        }
        let (kind, bytes) = self.result_bytes(producer)?;
        self.as_json(producer, kind, bytes)
    }

    pub(super) fn as_json(&self, producer: NodeId, kind: Kind, bytes: Vec<u8>) -> Result<Vec<u8>, Unknown> {
        match kind {
            Kind::Json => Ok(bytes),
            Kind::Text => {
                Ok(serde_json::Value::from(String::from_utf8_lossy(&bytes)).to_string().into_bytes())
            }
            Kind::Bytes | Kind::Array => Err(Unknown::Wrong(format!(
                "the result of {} is {}, which no expression reads: pass it as a whole parameter",
                self.nodes.name(producer),
                if kind == Kind::Array { "an array" } else { "bytes" }
            ))),
        }
    }

    /// Writes the results of a node's items as a JSON list.
    pub(super) fn write_list(&mut self, node: NodeId, out: &mut impl Write) -> Result<(), Unknown> {
        let io = |error: std::io::Error| Unknown::Wrong(error.to_string());
        out.write_all(b"[").map_err(io)?;
        for (at, unit) in self.units(node).unwrap_or_default().into_iter().enumerate() {
            if at > 0 {
                out.write_all(b",").map_err(io)?;
            }
            let json = match unit {
                Some(unit) => self.result_json(unit)?,
                None => b"null".to_vec(),
            };
            out.write_all(&json).map_err(io)?;
        }
        out.write_all(b"]").map_err(io)
    }

    /// Why a result is not there, in a run that runs nothing.
    pub(super) fn comes_first(&self, producer: NodeId) -> String {
        format!("it reads the result of {}, which would run first", self.nodes.name(producer))
    }

    fn too_long(&self, producer: NodeId) -> Unknown {
        Unknown::Wrong(format!(
            "the result of {} is longer than {}, which is as much as an expression reads: pass it as a whole parameter, or have a node make a shorter one",
            self.nodes.name(producer),
            crate::text::bytes(LIMIT_BYTES as u64)
        ))
    }

    pub(super) fn result_bytes(&mut self, producer: NodeId) -> Result<(Kind, Vec<u8>), Unknown> {
        let producer = self.source(producer);
        let held = self.state.results.get(&producer);
        let held = held.ok_or_else(|| self.comes_first(producer))?;
        let id = held.id;
        if let Some(bytes) = self.state.cache.get(producer) {
            return Ok((id.kind, bytes));
        }
        let found;
        let record = match &held.at {
            At::Unknown => None,
            At::Record(record) => Some(&**record),
            At::Key => {
                found = self.reader.lookup(self.keys.of(producer));
                found.as_ref()
            }
        };
        let read = match record {
            Some(record) if record.len > LIMIT_BYTES as u64 => return Err(self.too_long(producer)),
            Some(record) => self.reader.read(record).map_err(|error| error.to_string()),
            // On its way into the store: a file already.
            None => {
                let blobs = self.dir.worker_blobs_dir(self.layout);
                blob::read(&blobs, id.digest).map_err(|error| error.to_string())
            }
        };
        match read {
            Ok(bytes) if bytes.len() > LIMIT_BYTES => Err(self.too_long(producer)),
            Ok(bytes) => {
                self.state.cache.put(producer, bytes.clone());
                self.shrink_cache();
                Ok((id.kind, bytes))
            }
            Err(why) => match self.gone(producer, &why) {
                Unread::Gone(producer) => Err(Unknown::Gone(producer)),
                Unread::Full(why) | Unread::Wrong(why) => Err(Unknown::Wrong(why)),
            },
        }
    }
}

/// A list that must not become too long.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend(bytes);
        if self.0.len() > LIMIT_BYTES { Err(std::io::Error::other("too long")) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
