//! Manifests for machines: a node a line. Read borrowed: the usual node (`id`, `op`, `needs`) costs no
//! allocation of its own.

use std::borrow::Cow;
use std::fmt;
use std::thread;

use crossbeam::channel;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::build::Builder;
use super::problem::Fault;
use super::settings::ArtifactEntry;
use super::source::Source;
use super::words::did_you_mean;
use crate::names::{Hasher, NameHash};
use crate::threads;

/// Lines that are read together, in bytes: what is made of them fits a processor's own cache.
const CHUNK_BYTES: usize = 128 << 10;

/// Chunks that may be read before they are taken in.
const CHUNKS_AHEAD: usize = 8;

/// Ids whose data is fetched together: it must still be near when the last of them is taken in.
const FETCHED: usize = 256;

/// Reads all lines into the builder. Of a long manifest one thread reads the text, while this one takes in what it says.
pub(super) fn read(source: &Source, builder: &mut Builder) {
    let first = source.text.split_inclusive('\n').next().unwrap_or_default();
    let mut start = 0;
    if let Some(header) = header(first.trim_end()) {
        if let Err(fault) = read_header(&header, builder) {
            builder.problem(source.node_problem(0, fault));
        }
        start = first.len();
    }
    let hasher = builder.hasher();
    let chunks = chunks(&source.text, start).map(|(at, text)| Chunk::read(text, at, &hasher));
    if source.text.len() - start <= CHUNK_BYTES {
        return chunks.for_each(|chunk| chunk.take_in(source, builder));
    }
    thread::scope(|scope| {
        let (hand, read) = channel::bounded(CHUNKS_AHEAD);
        let there = chunks.clone();
        let reader = threads::start_within(scope, "manifest", move || {
            // Nobody takes any more if that thread has panicked.
            there.map(|chunk| hand.send(chunk)).take_while(Result::is_ok).for_each(drop);
        });
        match reader {
            Ok(_) => read.iter().for_each(|chunk| chunk.take_in(source, builder)),
            Err(_) => chunks.for_each(|chunk| chunk.take_in(source, builder)),
        }
    });
}

/// Pieces of a text from `start` on, of whole lines, each with its place.
fn chunks(text: &str, start: usize) -> impl Iterator<Item = (usize, &str)> + Clone {
    let mut at = start;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let full = rest.as_bytes().get(CHUNK_BYTES..).unwrap_or_default();
        let len =
            full.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |more| CHUNK_BYTES + more + 1);
        at += len;
        Some((at - len, &rest[..len]))
    })
}

/// What some lines say.
struct Chunk<'a> {
    /// Each with its place.
    lines: Vec<(usize, serde_json::Result<Node<'a>>)>,
    /// What these nodes need, one after the other.
    needs: Vec<Name<'a>>,
    /// Of each node: its id, then what it needs.
    hashes: Vec<NameHash>,
}

/// A line, without what it needs.
struct Node<'a> {
    id: Cow<'a, str>,
    op: Cow<'a, str>,
    needs: usize,
    rest: Map<String, Value>,
}

impl<'a> Chunk<'a> {
    fn read(text: &'a str, start: usize, hasher: &Hasher) -> Chunk<'a> {
        let mut chunk = Chunk { lines: Vec::new(), needs: Vec::new(), hashes: Vec::new() };
        let mut next = start;
        for line in text.split_inclusive('\n') {
            let at = next;
            next += line.len();
            let line = line.trim_end();
            if !line.is_empty() {
                let node = serde_json::from_str(line).map(|line| chunk.add(line, hasher));
                chunk.lines.push((at, node));
            }
        }
        chunk
    }

    /// All lists of needs become one: what is small is freed where it was made.
    fn add(&mut self, line: Line<'a>, hasher: &Hasher) -> Node<'a> {
        let Line { id, op, needs, rest } = line;
        let node = Node { id, op, needs: needs.len(), rest };
        self.hashes.push(NameHash::of(&node.id, hasher));
        self.hashes.extend(needs.iter().map(|need| NameHash::of(&need.0, hasher)));
        self.needs.extend(needs);
        node
    }

    fn take_in(self, source: &Source, builder: &mut Builder) {
        let (mut needs, mut hashes, mut fetched) = (self.needs.as_slice(), self.hashes.as_slice(), 0);
        for (at, line) in self.lines {
            let node = match line {
                Ok(node) => node,
                Err(error) => {
                    let offset = at + error.column().saturating_sub(1);
                    let message = error.to_string();
                    let message = message.split(" at line ").next().unwrap_or_default();
                    builder.problem(source.problem_at(offset, message));
                    continue;
                }
            };
            if fetched < 1 + node.needs {
                fetched = hashes.len().min(FETCHED.max(1 + node.needs));
                builder.fetch(&hashes[..fetched]);
            }
            fetched -= 1 + node.needs;
            let (own_needs, own_hashes);
            (own_needs, needs) = needs.split_at(node.needs);
            (own_hashes, hashes) = hashes.split_at(1 + node.needs);
            let own_needs = own_needs.iter().map(|need| &*need.0).zip(own_hashes[1..].iter().copied());
            if let Err(fault) = builder.node((&node.id, own_hashes[0]), &node.op, own_needs, node.rest, at) {
                builder.problem(source.node_problem(at, fault));
            }
        }
    }
}

/// The first line, if it is a header: nodes have no key `forkyard`.
fn header(line: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(line).ok().filter(|header: &Map<String, Value>| header.contains_key("forkyard"))
}

fn read_header(header: &Map<String, Value>, builder: &mut Builder) -> Result<(), Fault> {
    for (key, value) in header {
        match (key.as_str(), value) {
            ("forkyard", version) => {
                if version.as_u64() != Some(1) {
                    let message =
                        format!("this is a manifest of version {version}; this forkyard reads version 1");
                    return Err(Fault::at(key, message));
                }
            }
            ("run", Value::Object(table)) => builder.settings(table).map_err(|f| f.inside(key))?,
            ("artifacts", Value::Object(table)) => {
                for (name, entry) in table {
                    let entry = ArtifactEntry::read(name, entry, builder.dir());
                    entry.and_then(|e| builder.artifact(e)).map_err(|f| f.inside(name).inside(key))?;
                }
            }
            ("vars", Value::Object(table)) => builder.vars(table.clone()).map_err(|f| f.inside(key))?,
            ("groups", Value::Object(table)) => builder.groups(table).map_err(|f| f.inside(key))?,
            ("python", Value::Object(table)) => builder.python(table).map_err(|f| f.inside(key))?,
            ("alerts", Value::Object(table)) => builder.alerts(table).map_err(|f| f.inside(key))?,
            ("secrets", Value::Object(table)) => builder.secrets(table).map_err(|f| f.inside(key))?,
            ("run" | "artifacts" | "vars" | "groups" | "python" | "alerts" | "secrets", _) => {
                return Err(Fault::at(key, format!("`{key}` must be an object")));
            }
            _ => {
                let hint = did_you_mean(
                    key,
                    ["forkyard", "run", "artifacts", "vars", "groups", "python", "alerts", "secrets"],
                );
                return Err(Fault::at(key, format!("the first line has no key `{key}`{hint}")));
            }
        }
    }
    Ok(())
}

/// One node, as far as possible by reference into the text.
struct Line<'a> {
    id: Cow<'a, str>,
    op: Cow<'a, str>,
    needs: Vec<Name<'a>>,
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Line<'de>, D::Error> {
        struct LineVisitor;

        impl<'de> Visitor<'de> for LineVisitor {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a node: an object with `id` and `op`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let (mut id, mut op, mut needs, mut rest) = (None, None, None, Map::new());
                while let Some(Name(key)) = map.next_key()? {
                    let twice = match &*key {
                        "id" => id.replace(map.next_value::<Name>()?.0).is_some(),
                        "op" => op.replace(map.next_value::<Name>()?.0).is_some(),
                        "needs" => needs.replace(map.next_value()?).is_some(),
                        _ => rest.insert(key.to_string(), map.next_value()?).is_some(),
                    };
                    if twice {
                        return Err(A::Error::custom(format!("key `{key}` stands twice")));
                    }
                }
                Ok(Line {
                    id: id.ok_or_else(|| A::Error::custom("a node needs `id`, a string"))?,
                    op: op
                        .or_else(|| rest.contains_key("race").then(|| "race".into()))
                        .ok_or_else(|| A::Error::custom("a node needs `op`, a string"))?,
                    needs: needs.unwrap_or_default(),
                    rest,
                })
            }
        }
        deserializer.deserialize_map(LineVisitor)
    }
}
