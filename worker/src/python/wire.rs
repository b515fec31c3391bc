//! What goes between a worker and its Python process. Knows no descriptors.
//!
//! ```text
//! to the child:    length (4) | letter | JSON         G: tasks to be run in order, up to the first that fails
//!                                                      S: tasks to be begun beside others;  C: the node to give up
//! from the child:  header (40) | value | writes | log  see `Header`; the first one is a greeting with its process id
//! asked:           length (4) | what (1) | node (4) | key     1: one key of the state, 2: all of it
//! answered:        status (1) | length (4) | JSON             0: this, 1: not set, 2: refused, for this reason
//! ```
//!
//! Numbers are little-endian. A task is a JSON object: `n` node, `a` attempt, `c` call, `g` arguments, `k` named ones,
//! `i` item, `A` artifacts, `r` results that are artifacts, and `b` what is not JSON, each as [kind, path, bytes in hex], or as ["list", null, [...]].

use std::collections::BTreeMap;
use std::io::Write;

use forkyard_shared::ids::NodeId;
use forkyard_shared::protocol::{Param, Writes};
use forkyard_shared::value::Kind;
use serde_json::value::RawValue;

use crate::op::Failed;
use crate::task::Task;

/// The bytes of a [`Header`].
pub(super) const HEADER_BYTES: usize = 40;

/// What comes before an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// The node; in a greeting the process id.
    pub node: u32,
    pub status: Status,
    pub kind: Kind,
    /// How many tasks of a group are left unrun because this one failed.
    pub left: u16,
    pub started_ns: u64,
    pub duration_ns: u64,
    /// What it returned, or the error's text.
    pub value_len: u64,
    pub writes_len: u32,
    pub log_len: u32,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Done,
    Failed,
    /// It is to be run again: seconds, a newline, and why.
    Later,
    Cancelled,
    /// There is no process.
    Broken,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let status = match bytes[4] {
            0 => Status::Done,
            1 => Status::Failed,
            2 => Status::Later,
            3 => Status::Cancelled,
            4 => Status::Broken,
            _ => return None,
        };
        Some(Header {
            node: word(0),
            status,
            kind: Kind::from_code(bytes[5])?,
            left: u16::from_le_bytes([bytes[6], bytes[7]]),
            started_ns: long(8),
            duration_ns: long(16),
            value_len: long(24),
            writes_len: word(32),
            log_len: word(36),
        })
    }
}

/// A frame of tasks.
pub(super) fn tasks(letter: u8, tasks: &[Vec<u8>]) -> Vec<u8> {
    frame(letter, &[&b"["[..], &tasks.join(&b','), b"]"].concat())
}

/// A frame that gives a task up.
pub(super) fn cancel(node: NodeId) -> Vec<u8> {
    frame(b'C', node.0.to_string().as_bytes())
}

fn frame(letter: u8, body: &[u8]) -> Vec<u8> {
    let len = (body.len() + 1) as u32;
    [&len.to_le_bytes()[..], &[letter], body].concat()
}

/// A task as JSON; `path` finds the file of a large result.
///
/// # Errors
/// When a result that it takes cannot be read.
pub(super) fn task(
    task: &Task,
    attempt: u32,
    mut path: impl FnMut(&Param) -> Result<Option<String>, Failed>,
) -> Result<Vec<u8>, Failed> {
    let mut json = format!(r#"{{"n":{},"a":{attempt}"#, task.node().0).into_bytes();
    let (mut named, mut references) = (Object::default(), Object::default());
    for (name, param) in task.params() {
        let text = inline_json(param).filter(|_| !name.starts_with("inputs."));
        let place = match (name.as_str(), name.strip_prefix("params.")) {
            ("call", _) => Some("c"),
            ("args", _) => Some("g"),
            ("item", _) => Some("i"),
            ("code", _) => continue,
            _ => None,
        };
        match (text, place, name.strip_prefix("params.")) {
            (Some(text), Some(place), _) => {
                json.extend(format!(r#","{place}":"#).into_bytes());
                json.extend(text.as_bytes());
            }
            (Some(text), None, Some(name)) => named.put(name, text.as_bytes()),
            _ => references.put(name, reference(param, &mut path)?.to_string().as_bytes()),
        }
    }
    let mut results = Object::default();
    for (name, param) in task.results() {
        results.put(name, reference(param, &mut path)?.to_string().as_bytes());
    }
    let artifacts: Vec<&str> = task.named_artifacts().map(|artifact| artifact.setup.name.as_str()).collect();
    if !artifacts.is_empty() {
        json.extend(br#","A":"#);
        serde_json::to_writer(&mut json, &artifacts)?;
    }
    for (letter, object) in [("k", named), ("b", references), ("r", results)] {
        object.write(letter, &mut json);
    }
    json.push(b'}');
    Ok(json)
}

/// An object in the making.
#[derive(Default)]
struct Object(Vec<u8>);

impl Object {
    fn put(&mut self, name: &str, json: &[u8]) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        serde_json::to_writer(&mut self.0, name).expect("text is JSON");
        self.0.push(b':');
        self.0.extend(json);
    }

    fn write(self, letter: &str, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            write!(out, r#","{letter}":"#).expect("memory takes it");
            out.extend(self.0);
            out.push(b'}');
        }
    }
}

/// A parameter that stands in the message as JSON or text.
fn inline_json(param: &Param) -> Option<String> {
    match param {
        Param::Json(text) => Some(text.clone()),
        Param::Inline(Kind::Json, bytes) => String::from_utf8(bytes.clone()).ok(),
        Param::Inline(Kind::Text, bytes) => {
            Some(serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string())
        }
        Param::Inline(Kind::Bytes | Kind::Array, _) | Param::Blob { .. } | Param::List(_) => None,
    }
}

fn reference(
    param: &Param,
    path: &mut impl FnMut(&Param) -> Result<Option<String>, Failed>,
) -> Result<serde_json::Value, Failed> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (kind, held) = match param {
        Param::Json(text) => (Kind::Json, Some(hex(text.as_bytes()))),
        Param::Inline(kind, bytes) => (*kind, Some(hex(bytes))),
        Param::Blob { kind, .. } => (*kind, None),
        Param::List(items) => {
            let items = items.iter().map(|item| reference(item, path)).collect::<Result<Vec<_>, _>>()?;
            return Ok(serde_json::json!(["list", null, items]));
        }
    };
    Ok(serde_json::json!([kind.name(), path(param)?, held]))
}

/// What a task wrote to the state: an object whose values stand in lists of one, or are null where a key was removed.
///
/// # Errors
/// When it is none.
pub(super) fn writes(json: &[u8]) -> Result<Writes, Failed> {
    if json.is_empty() {
        return Ok(Writes::new());
    }
    let writes: BTreeMap<String, Option<[Box<RawValue>; 1]>> = serde_json::from_slice(json)?;
    let text = |[value]: [Box<RawValue>; 1]| value.get().as_bytes().to_vec();
    Ok(writes.into_iter().map(|(key, value)| (key, value.map(text))).collect())
}
