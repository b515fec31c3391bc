//! The node key: SHA-256 over everything that a node can read. Same key, same result.
//!
//! The key is a walk over fields, each a tag, a length and bytes ([`Field`]); whoever wants to explain a
//! key takes the same walk. What is in it is part of the store's format.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use forkyard_shared::artifact::Format;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{NodeId, OpId};
use forkyard_shared::value::Kind;
use forkyard_worker::Ops;

use crate::early::Early;
use crate::engine::StateRead;
use crate::nodes::Nodes;
use crate::plan::{Arg, Detail, Over, Plan};
use crate::room;
use crate::store::{AtHand, DigestMemo, Stamp};

/// Changes when the meaning of the walk changes: then every key is new.
pub(crate) const KEY_VERSION: u8 = 1;

/// What stands for a key that was not made.
pub(crate) const NO_KEY: Digest = Digest([0; 32]);

/// What a field of a key is. The numbers are part of the store's format.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Field {
    Op = 1,
    OpVersion = 2,
    /// The id of a node whose only point is its effect: each is run.
    Node = 3,
    ParamName = 4,
    ParamJson = 5,
    /// Kind and digest of another node's result: of a parameter, or of an artifact after its name.
    ParamResult = 6,
    ArtifactName = 7,
    ArtifactDigest = 8,
    /// How the artifact's bytes are read: the format's name and, of records, the field that is their key.
    ArtifactFormat = 9,
    /// Where a command's relative paths start, as seen from the manifest that was run.
    Dir = 10,
    /// A file that the command line or `files` names: its word there, then its digest.
    FileName = 11,
    FileDigest = 12,
    Salt = 13,
    /// The key of a node that must come before, but whose result is not read. In order of keys.
    Need = 14,
    /// A key of the state and the digest of its value, or nothing where it is not set.
    StateKey = 15,
    StateValue = 16,
    /// The digest of all of the state.
    State = 17,
    /// The name of an environment variable whose value is nobody's business.
    Secret = 18,
    /// A variable of Python's environment, and its value.
    Environment = 19,
}

/// Appends a field to what is hashed.
pub(crate) fn push(text: &mut Vec<u8>, field: Field, bytes: &[u8]) {
    text.push(field as u8);
    text.extend((bytes.len() as u32).to_le_bytes());
    text.extend(bytes);
}

/// How every walk begins: with the op, its version and, where each node of it is to be run, the node's id.
pub(crate) fn begin((op, version, id): (&str, &[u8], Option<&str>), mut each: impl FnMut(Field, &[u8])) {
    each(Field::Op, op.as_bytes());
    each(Field::OpVersion, version);
    if let Some(id) = id {
        each(Field::Node, id.as_bytes());
    }
}

/// How every walk ends: with the keys of what is only needed, by key, so that the order in which needs are written down
/// does not matter.
pub(crate) fn end(needs: &mut [Digest], mut each: impl FnMut(Field, &[u8])) {
    needs.sort_unstable();
    needs.iter().for_each(|need| each(Field::Need, &need.0));
}

/// A finished node's result, as far as keys care.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResultId {
    pub kind: Kind,
    pub digest: Digest,
}

/// Makes keys.
pub(crate) struct Keys<'a> {
    ops: &'a Ops,
    artifacts: Vec<Digest>,
    memo: DigestMemo,
    /// Versions by op; the executable is hashed only if an op has no version of its own.
    versions: Vec<Vec<u8>>,
    /// Keys of nodes that have one.
    keys: Vec<Digest>,
    /// Stored results of plain nodes, which were looked up beforehand.
    early: Vec<AtHand>,
    /// What stands in the keys of items for what their nodes only need.
    needs_of_items: HashMap<NodeId, Option<Digest>>,
    /// What the keys of unsettled nodes say of files.
    files: HashMap<NodeId, Vec<FileRead>>,
    /// Files of Python code, each read once: a process that has imported one does not read it again either.
    code: HashMap<PathBuf, Code>,
    /// The fields of the key that is being made.
    scratch: Vec<u8>,
    needs: Vec<Digest>,
}

impl<'a> Keys<'a> {
    /// For a plan whose artifacts have these digests, some of whose keys were made early.
    ///
    /// # Errors
    /// When the executable cannot be read and an op needs its digest.
    pub fn new(
        plan: &'a Plan,
        ops: &'a Ops,
        artifacts: Vec<Digest>,
        (mut memo, early): (DigestMemo, Early),
    ) -> io::Result<Keys<'a>> {
        let mut build = None;
        let mut versions = Vec::new();
        for op in ops.ids() {
            versions.push(match ops.version(op) {
                Some(version) => version.to_le_bytes().to_vec(),
                None if !plan.ops.contains(&op) => Vec::new(),
                None => {
                    if build.is_none() {
                        build = Some(memo.digest(&File::open("/proc/self/exe")?)?);
                    }
                    build.expect("set above").0.to_vec()
                }
            });
        }
        Ok(Keys {
            ops,
            artifacts,
            memo,
            versions,
            keys: early.keys,
            early: early.stored,
            needs_of_items: HashMap::new(),
            files: HashMap::new(),
            code: HashMap::new(),
            scratch: Vec::new(),
            needs: Vec::new(),
        })
    }

    /// What was found beforehand under the key of a node.
    pub fn at_hand(&self, node: NodeId) -> AtHand {
        self.early.get(node.index()).copied().unwrap_or_default()
    }

    /// Looks at what is known of a node's key.
    pub fn fetch(&self, node: NodeId) -> u8 {
        self.keys[node.index()].0[0] ^ self.at_hand(node) as u8
    }

    /// Whether the node has a key that cannot change.
    pub fn is_early(&self, node: NodeId) -> bool {
        self.at_hand(node) != AtHand::Unknown
    }

    /// Nodes of this op will come that are not in the plan.
    ///
    /// # Errors
    /// When the executable cannot be read and the op needs its digest.
    pub fn know_op(&mut self, op: OpId) -> io::Result<()> {
        if self.versions[op.index()].is_empty() {
            let build = self.memo.digest(&File::open("/proc/self/exe")?)?;
            self.versions[op.index()] = build.0.to_vec();
        }
        Ok(())
    }

    /// The key of a node all of whose needs have theirs.
    pub fn of(&self, node: NodeId) -> Digest {
        self.keys[node.index()]
    }

    /// There will be so many nodes in all.
    pub fn expect(&mut self, nodes: usize) {
        room::take(&mut self.keys, nodes, NO_KEY);
    }

    /// Makes room for one more node.
    pub fn add(&mut self) {
        self.keys.push(NO_KEY);
    }

    /// What stands for a node that has no key of its own: a list of items, or one that did not succeed.
    pub fn set(&mut self, node: NodeId, key: Digest) {
        self.keys[node.index()] = key;
    }

    /// Makes the key of a node with these parameters; `result` tells what the nodes returned whose results it
    /// reads.
    ///
    /// # Errors
    /// When a file that it names cannot be read, or it reads a result that is not there.
    pub fn make(
        &mut self,
        nodes: &Nodes,
        node: NodeId,
        said: Said,
        result: impl Fn(NodeId) -> Option<ResultId>,
    ) -> Result<Digest, String> {
        self.files.remove(&node);
        let key = self.explain(nodes, node, said, result, |_, _| {})?;
        self.keys[node.index()] = key;
        Ok(key)
    }

    /// Takes the walk of a node's key, and hands each field to `also`. Files are what they were when the key was made,
    /// if it was.
    ///
    /// # Errors
    /// As [`Keys::make`].
    pub fn explain(
        &mut self,
        nodes: &Nodes,
        node: NodeId,
        said: Said,
        result: impl Fn(NodeId) -> Option<ResultId>,
        mut also: impl FnMut(Field, &[u8]),
    ) -> Result<Digest, String> {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        text.push(KEY_VERSION);
        let walked = self.walk(nodes, node, said, result, |field, bytes| {
            also(field, bytes);
            push(&mut text, field, bytes);
        });
        let key = Digest::of(&text);
        self.scratch = text;
        walked.map(|()| key)
    }

    fn walk(
        &mut self,
        nodes: &Nodes,
        node: NodeId,
        said: Said,
        result: impl Fn(NodeId) -> Option<ResultId>,
        mut each: impl FnMut(Field, &[u8]),
    ) -> Result<(), String> {
        let plan = nodes.plan;
        let (op, followed) = (nodes.op(node), said.followed);
        let signature = self.ops.get(op).signature();
        let id = signature.effect.then(|| nodes.name(node));
        begin((self.ops.name(op), &self.versions[op.index()], id.as_deref()), &mut each);
        let mut read = Vec::new();
        if let Some(detail) = nodes.detail(node) {
            read.extend(&detail.reads);
            for (name, arg) in said.params {
                each(Field::ParamName, name.as_bytes());
                match arg {
                    Arg::Json(text) => each(Field::ParamJson, text.as_bytes()),
                    Arg::Result(producer) => {
                        read.push(*producer);
                        each(Field::ParamResult, &result_bytes(result(*producer))?);
                    }
                    Arg::EachResult | Arg::Template(_) => {
                        return Err("BUG: a key before its parameters".into());
                    }
                }
            }
            for artifact in &detail.artifacts {
                let entry = &plan.artifacts[artifact.index()];
                each(Field::ArtifactName, entry.name.as_bytes());
                each(Field::ArtifactDigest, &self.artifacts[artifact.index()].0);
                let mut format = match entry.format {
                    Format::Jsonl | Format::Json => format!("{} {}", entry.format.name(), entry.key),
                    format => format.name().into(),
                };
                if let Some(part) = &entry.part {
                    format += &format!("#{part}");
                }
                each(Field::ArtifactFormat, format.as_bytes());
            }
            for producer in &detail.artifact_results {
                read.push(*producer);
                each(Field::ArtifactName, plan.name(*producer).as_bytes());
                each(Field::ParamResult, &result_bytes(result(*producer))?);
            }
            if signature.runs_command() {
                // A project that moves as a whole keeps its keys.
                let dir = detail.dir.strip_prefix(&plan.dir).unwrap_or(&detail.dir);
                each(Field::Dir, dir.as_os_str().as_bytes());
                let files = match self.files.remove(&node) {
                    Some(files) => files,
                    None => files(detail, said.params, &mut self.memo)?,
                };
                for file in &files {
                    each(Field::FileName, file.word.as_bytes());
                    each(Field::FileDigest, &file.digest.0);
                }
                if !files.is_empty() {
                    self.files.insert(node, files);
                }
            }
            if let Some(call) = &detail.call {
                for file in &call.files {
                    each(Field::FileName, file.label.as_bytes());
                    each(Field::FileDigest, &self.code_digest(&file.path)?.0);
                }
                for (name, value) in plan.python.iter().flat_map(|python| &python.env) {
                    each(Field::Environment, format!("{name}={value}").as_bytes());
                }
            }
            if signature.runs_command() || signature.calls_python() {
                plan.secrets.iter().for_each(|name| each(Field::Secret, name.as_bytes()));
            }
            for read in said.state {
                let digest = read.digest.as_ref().map_or(&[][..], |digest| &digest.0);
                match &read.name {
                    Some(name) => {
                        each(Field::StateKey, name.as_bytes());
                        each(Field::StateValue, digest);
                    }
                    None => each(Field::State, digest),
                }
            }
            if let Some(salt) = said.salt {
                each(Field::Salt, salt.as_bytes());
            }
        }
        self.needs.clear();
        let fan = nodes.item(node).and_then(|item| nodes.flow(item.of)?.fan.as_ref());
        if let Some(Over::Each(leader)) = fan.map(|fan| &fan.over) {
            // It follows one item of that node, and not the node.
            read.push(*leader);
            let follows_only = fan.is_some_and(|fan| !fan.reads_item);
            self.needs.extend(followed.filter(|_| follows_only).map(|unit| self.keys[unit.index()]));
        }
        let order_only = nodes.needs(node).filter(|need| !read.contains(need));
        match nodes.item(node) {
            // They are the same for all items, and may be many.
            Some(item) => {
                let (all, keys) = (&mut self.needs_of_items, &self.keys);
                let digest = all.entry(item.of).or_insert_with(|| {
                    let mut needs: Vec<Digest> = order_only.map(|need| keys[need.index()]).collect();
                    needs.sort_unstable();
                    (!needs.is_empty())
                        .then(|| Digest::of(needs.iter().map(|key| key.0).collect::<Vec<_>>().as_flattened()))
                });
                self.needs.extend(*digest);
            }
            None => self.needs.extend(order_only.map(|need| self.keys[need.index()])),
        }
        end(&mut self.needs, each);
        Ok(())
    }

    /// Whether the key can be made before the node's needs are done: no result and no file is read, which
    /// both may come into being only by then.
    pub fn is_known_early(&self, nodes: &Nodes, node: NodeId) -> bool {
        let Some(detail) = nodes.detail(node) else { return true };
        let command = || self.ops.get(nodes.op(node)).signature().runs_command();
        detail.flow.is_none() && detail.is_known() && nodes.results_of(node).next().is_none() && !command()
    }

    fn code_digest(&mut self, path: &Path) -> Result<Digest, String> {
        if let Some(code) = self.code.get(path) {
            return Ok(code.digest);
        }
        let read = digest_of(path, &mut self.memo).and_then(|digest| {
            Ok(Code { digest, stamp: Stamp::of(&std::fs::metadata(path)?), is_changed: false })
        });
        let code = read.map_err(|error| format!("read {}: {error}", path.display()))?;
        Ok(self.code.entry(path.into()).or_insert(code).digest)
    }

    /// Looks whether code was changed since its digest was made.
    pub fn look_at_code(&mut self) {
        for (path, code) in &mut self.code {
            let same = std::fs::metadata(path).is_ok_and(|metadata| Stamp::of(&metadata) == code.stamp);
            code.is_changed = !same && digest_of(path, &mut self.memo).ok() != Some(code.digest);
        }
    }

    /// A file that the node's key covers and that is not any more what it was when the key was made; of code, as it was
    /// when somebody looked.
    pub fn changed_file(&mut self, nodes: &Nodes, node: NodeId) -> Option<PathBuf> {
        let call = nodes.detail(node).and_then(|detail| detail.call.as_ref());
        let is_changed = |path: &PathBuf| self.code.get(path).is_some_and(|code| code.is_changed);
        let mut of_code = call.into_iter().flat_map(|call| &call.files).map(|file| &file.path);
        if let Some(changed) = of_code.find(|path| is_changed(path)) {
            return Some(changed.clone());
        }
        let memo = &mut self.memo;
        let files = self.files.get(&node)?;
        let changed = |file: &&FileRead| digest_of(&file.path, memo).ok() != Some(file.digest);
        files.iter().find(changed).map(|file| file.path.clone())
    }

    /// Gives a node a key that no node ever had: nobody knows what its result came from. What comes after it
    /// will not be found again either.
    pub fn disown(&mut self, node: NodeId) {
        let once = format!("{} {} {}", self.of(node), std::process::id(), forkyard_shared::sys::now_ns());
        self.keys[node.index()] = Digest::of(once.as_bytes());
    }

    /// Nobody will ask about the node's files any more.
    pub fn settled(&mut self, node: NodeId) {
        if !self.files.is_empty() {
            self.files.remove(&node);
        }
    }

    /// Remembers the digests that were computed.
    pub fn save(&mut self) -> io::Result<()> {
        self.memo.save()
    }
}

/// What a key says of a result that the node reads.
fn result_bytes(result: Option<ResultId>) -> Result<[u8; 33], String> {
    let id = result.ok_or("BUG: a key before the results that it reads")?;
    let mut bytes = [id.kind.code(); 33];
    bytes[1..].copy_from_slice(&id.digest.0);
    Ok(bytes)
}

/// What a node says of its parameters, once that is known.
#[derive(Clone, Copy)]
pub(crate) struct Said<'a> {
    /// [`Arg::Json`] and [`Arg::Result`] only.
    pub params: &'a [(String, Arg)],
    /// The item that it follows.
    pub followed: Option<NodeId>,
    /// What it sees of the state.
    pub state: &'a [StateRead],
    pub salt: Option<&'a str>,
}

impl<'a> Said<'a> {
    /// What a node says whose parameters are known from the start.
    pub fn of(detail: Option<&'a Detail>) -> Said<'a> {
        let salt = detail.and_then(|detail| detail.salt.as_ref()).and_then(|salt| match salt {
            Arg::Json(text) => Some(text.as_str()),
            _ => None,
        });
        Said { params: detail.map_or(&[], |detail| &detail.params), salt, followed: None, state: &[] }
    }
}

/// Where relative paths of a command start.
pub(crate) fn working_dir(detail: &Detail, params: &[(String, Arg)]) -> PathBuf {
    let cwd = json_param(params, "cwd").and_then(|cwd| cwd.as_str().map(PathBuf::from));
    let dir = cwd.map_or(detail.dir.clone(), |cwd| detail.dir.join(cwd));
    std::path::absolute(&dir).unwrap_or(dir)
}

/// A file of Python code, as keys say it.
struct Code {
    digest: Digest,
    stamp: Stamp,
    is_changed: bool,
}

/// A file that a command may read, as its key saw it.
struct FileRead {
    word: String,
    path: PathBuf,
    digest: Digest,
}

/// The files that a command's key covers: what `files` names, and every word of its command line that is
/// the name of a regular file.
fn files(detail: &Detail, params: &[(String, Arg)], memo: &mut DigestMemo) -> Result<Vec<FileRead>, String> {
    let Some(run) = json_param(params, "run") else { return Ok(Vec::new()) };
    let texts = |value: serde_json::Value| serde_json::from_value::<Vec<String>>(value).unwrap_or_default();
    let dir = working_dir(detail, params);
    let mut found = Vec::new();
    for word in texts(run) {
        let path = dir.join(&word);
        let metadata =
            std::fs::metadata(&path).ok().filter(|metadata| !word.is_empty() && metadata.is_file());
        if let Some(metadata) = metadata {
            let digest = digest_of_file(&path, &metadata, memo)
                .map_err(|error| format!("read {}: {error}", path.display()))?;
            found.push(FileRead { word, path, digest });
        }
    }
    for word in json_param(params, "files").map(texts).unwrap_or_default() {
        let path = dir.join(&word);
        let digest =
            digest_of(&path, memo).map_err(|error| format!("`files` names {}: {error}", path.display()))?;
        found.push(FileRead { word, path, digest });
    }
    Ok(found)
}

fn digest_of(path: &Path, memo: &mut DigestMemo) -> io::Result<Digest> {
    digest_of_file(path, &std::fs::metadata(path)?, memo)
}

/// The same, of what was just looked at. A file that is remembered is not even opened.
fn digest_of_file(path: &Path, metadata: &Metadata, memo: &mut DigestMemo) -> io::Result<Digest> {
    // Before it is opened: the open of a named pipe waits for somebody who writes to it.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    match memo.remembered(metadata) {
        Some(digest) => Ok(digest),
        None => memo.digest(&File::open(path)?),
    }
}

fn json_param(params: &[(String, Arg)], name: &str) -> Option<serde_json::Value> {
    let at = params.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
    match &params[at].1 {
        Arg::Json(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}
