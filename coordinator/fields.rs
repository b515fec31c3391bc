//! What the key of a node was made of, as people are told it: the walk of the key, with names beside the bytes. Kept
//! for nodes that ran, so that the next walk can be compared with it. Knows nothing of where it is kept.

use std::collections::HashMap;

use bincode::{Decode, Encode};
use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::ids::NodeId;

use crate::key::{Field, Keys, Said};
use crate::nodes::Nodes;
use crate::plan::Arg;

/// One field of a key.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct KeyField {
    pub what: What,
    /// Which of its kind: a parameter's name, an artifact's, a file's, a node's.
    pub label: String,
    /// The first bytes of the SHA-256 of what it says; nothing if the preview is all of that.
    pub digest: Option<[u8; 8]>,
    /// The value itself if it is short text, else its beginning, its digest or where it comes from.
    pub preview: String,
}

impl KeyField {
    fn is_as(&self, other: &KeyField) -> bool {
        let same = match (self.digest, other.digest) {
            (None, None) => self.preview == other.preview,
            (one, other) => one == other,
        };
        self.what == other.what && same
    }
}

/// What a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Op,
    Version,
    Node,
    Param,
    /// A parameter that is the result of another node, which the preview names.
    Result,
    Artifact,
    Format,
    /// An artifact that is the result of another node.
    ArtifactResult,
    Dir,
    File,
    Salt,
    /// A node that must come before.
    Need,
    /// A variable that it reads, or all of them.
    State,
    /// A variable of the environment that is secret: its name.
    Secret,
    /// A variable of Python's environment.
    Environment,
}

impl What {
    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            What::Op => "op",
            What::Version => "version",
            What::Node => "node",
            What::Param => "param",
            What::Result => "param",
            What::Artifact => "artifact",
            What::Format => "format of artifact",
            What::ArtifactResult => "artifact",
            What::Dir => "directory",
            What::File => "file",
            What::Salt => "salt",
            What::Need => "need",
            What::State => "variable",
            What::Secret => "secret",
            What::Environment => "environment",
        }
    }
}

/// What the key of one node was made of.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct KeyFields {
    /// The node's id, or its item's name.
    pub node: String,
    pub key: Digest,
    pub fields: Vec<KeyField>,
}

/// Characters of a value that are kept.
const PREVIEW_CHARS: usize = 60;

/// Needs that are kept one by one; more than these stand together.
const NEEDS_MAX: usize = 32;

impl KeyFields {
    /// Takes the walk of a node's key once more, which must have been made. Nothing if it leads elsewhere by now.
    pub fn of(
        keys: &mut Keys,
        nodes: &Nodes,
        node: NodeId,
        said: Said,
        result: impl Fn(NodeId) -> Option<crate::key::ResultId>,
    ) -> Option<KeyFields> {
        let (key, mut raw) = (keys.of(node), Vec::new());
        let again = keys.explain(nodes, node, said, result, |field, bytes| raw.push((field, bytes.to_vec())));
        (again.ok()? == key).then(|| {
            let fields = named(keys, nodes, node, said, &raw);
            KeyFields { node: nodes.name(node).into_owned(), key, fields }
        })
    }
}

/// The fields of a walk, with the names that their bytes do not have.
fn named(keys: &Keys, nodes: &Nodes, node: NodeId, said: Said, raw: &[(Field, Vec<u8>)]) -> Vec<KeyField> {
    let mut fields = Vec::new();
    let (mut name, mut is_param) = (String::new(), false);
    let mut needs: Vec<&[u8]> = Vec::new();
    for (field, bytes) in raw {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let mut put = |what, label: &str, (digest, preview): (Option<[u8; 8]>, String)| {
            fields.push(KeyField { what, label: label.into(), digest, preview });
        };
        match field {
            Field::Op => put(What::Op, "", (None, text())),
            Field::OpVersion => put(What::Version, "", (None, version(bytes))),
            Field::Node => put(What::Node, "", (None, text())),
            Field::ParamName => (name, is_param) = (text(), true),
            Field::ArtifactName | Field::FileName | Field::StateKey => (name, is_param) = (text(), false),
            Field::StateValue if bytes.is_empty() => put(What::State, &name, (None, "not set".into())),
            Field::StateValue => put(What::State, &name, (first(bytes), hex(bytes))),
            Field::State => put(What::State, "", (first(bytes), hex(bytes))),
            Field::ParamJson => put(What::Param, &name, cut(text())),
            Field::ParamResult if is_param => {
                let preview = producer(nodes, said, &name).unwrap_or_default();
                put(What::Result, &name, (first(&bytes[1..]), preview));
            }
            Field::ParamResult => put(What::ArtifactResult, &name, (first(&bytes[1..]), name.clone())),
            Field::ArtifactDigest => put(What::Artifact, &name, (first(bytes), hex(bytes))),
            Field::ArtifactFormat => put(What::Format, &name, (None, text())),
            Field::Dir => put(What::Dir, "", (None, text())),
            Field::FileDigest => put(What::File, &name, (first(bytes), hex(bytes))),
            Field::Salt => put(What::Salt, "", cut(text())),
            Field::Secret => put(What::Secret, &text(), (None, "its value is not in the key".into())),
            Field::Environment => {
                let text = text();
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                put(What::Environment, name, cut(value.into()));
            }
            Field::Need => needs.push(bytes),
        }
    }
    fields.extend(named_needs(keys, nodes, node, &needs));
    fields
}

fn named_needs(keys: &Keys, nodes: &Nodes, node: NodeId, needs: &[&[u8]]) -> Vec<KeyField> {
    if needs.is_empty() {
        return Vec::new();
    }
    if needs.len() > NEEDS_MAX {
        let mut all = Hasher::new();
        needs.iter().for_each(|key| all.update(key));
        let digest = first(&all.finish().0);
        let preview = format!("{} nodes", needs.len());
        return vec![KeyField { what: What::Need, label: "all".into(), digest, preview }];
    }
    let names: HashMap<Digest, NodeId> = nodes.needs(node).map(|need| (keys.of(need), need)).collect();
    let name = |key: &[u8]| {
        let known = names.iter().find(|(known, _)| known.0 == key);
        known.map_or(String::new(), |(_, need)| nodes.name(*need).into_owned())
    };
    let field =
        |key: &&[u8]| KeyField { what: What::Need, label: name(key), digest: first(key), preview: hex(key) };
    let mut fields: Vec<KeyField> = needs.iter().map(field).collect();
    fields.sort_by(|a, b| a.label.cmp(&b.label));
    fields
}

/// The node whose result is this parameter.
fn producer(nodes: &Nodes, said: Said, param: &str) -> Option<String> {
    said.params.iter().find_map(|(name, arg)| match arg {
        Arg::Result(producer) if name == param => Some(nodes.name(*producer).into_owned()),
        _ => None,
    })
}

fn version(bytes: &[u8]) -> String {
    match <[u8; 4]>::try_from(bytes) {
        Ok(number) => u32::from_le_bytes(number).to_string(),
        // An op without a version has that of the program.
        Err(_) => format!("executable {}", hex(bytes)),
    }
}

/// The beginning of a digest.
fn first(digest: &[u8]) -> Option<[u8; 8]> {
    digest.first_chunk().copied()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn cut(text: String) -> (Option<[u8; 8]>, String) {
    match text.char_indices().nth(PREVIEW_CHARS) {
        None => (None, text),
        Some((end, _)) => (first(&Digest::of(text.as_bytes()).0), format!("{}...", &text[..end])),
    }
}

/// A field that is not what it was.
#[derive(Debug, PartialEq)]
pub(crate) struct Change {
    pub what: What,
    pub label: String,
    /// `None`: there was none.
    pub before: Option<String>,
    /// `None`: there is none any more.
    pub after: Option<String>,
}

/// What distinguishes two walks.
pub(crate) fn changes(before: &[KeyField], after: &[KeyField]) -> Vec<Change> {
    let id = |field: &KeyField| (field.what.word(), field.label.clone());
    let old: HashMap<_, &KeyField> = before.iter().map(|field| (id(field), field)).collect();
    let new: HashMap<_, &KeyField> = after.iter().map(|field| (id(field), field)).collect();
    let mut changes = Vec::new();
    for field in after {
        let was = old.get(&id(field));
        if was.is_none_or(|was| !was.is_as(field)) {
            changes.push(Change {
                what: field.what,
                label: field.label.clone(),
                before: was.map(|was| was.preview.clone()),
                after: Some(field.preview.clone()),
            });
        }
    }
    for field in before.iter().filter(|field| !new.contains_key(&id(field))) {
        changes.push(Change {
            what: field.what,
            label: field.label.clone(),
            before: Some(field.preview.clone()),
            after: None,
        });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(label: &str, text: &str) -> KeyField {
        let (digest, preview) = cut(text.into());
        KeyField { what: What::Param, label: label.into(), digest, preview }
    }

    #[test]
    fn values_of_the_same_beginning_are_told_apart_and_the_same_are_not() {
        let long = "x".repeat(PREVIEW_CHARS);
        let before = [param("a", &format!("{long}1")), param("b", "same"), param("c", "gone")];
        let after = [param("a", &format!("{long}2")), param("b", "same"), param("d", "new")];
        let found: Vec<String> = changes(&before, &after).into_iter().map(|change| change.label).collect();
        assert_eq!(found, ["a", "d", "c"]);
        assert_eq!(changes(&before, &before), []);
    }
}
