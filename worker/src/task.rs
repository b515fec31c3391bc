//! What an op sees of its task: parameters, artifacts, earlier results, and a place for a large one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use forkyard_shared::artifact::{Layout, Matrix, Records, Table, Usearch};
use forkyard_shared::blob::{self, BlobError};
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::NodeId;
use forkyard_shared::mapping;
use forkyard_shared::protocol::{self, Cause, Param};
use forkyard_shared::scan;
use forkyard_shared::sink::Sink;
use forkyard_shared::value::{INLINE_MAX_BYTES, Kind};
use hashlink::LruCache;
use serde::de::DeserializeOwned;

use crate::attach::{Artifact, Attached};
use crate::op::Failed;
use crate::secrets::{Guarded, Secrets};
use crate::state::State;

/// One attempt to run a node.
pub struct Task<'a> {
    message: &'a protocol::Task,
    attached: &'a Attached,
    /// Results of other nodes that are artifacts of this one.
    results: Vec<Rc<Artifact>>,
    state: State<'a>,
}

/// Results that were mapped as artifacts, because the next task may need them too.
pub(crate) type MappedResults = LruCache<Digest, Rc<Artifact>>;

impl<'a> Task<'a> {
    /// A task whose results of other nodes are not mapped as artifacts yet.
    pub(crate) fn new(message: &'a protocol::Task, attached: &'a Attached) -> Task<'a> {
        let state = State::new(&attached.arena, message.context, &message.reads);
        Task { message, attached, results: Vec::new(), state }
    }

    /// Maps the results that are its artifacts.
    pub(crate) fn map_results(&mut self, mapped: &mut MappedResults) -> Result<(), Failed> {
        for (name, value) in &self.message.artifact_results {
            let result = self.map_result(name, value, mapped)?;
            self.results.push(result);
        }
        Ok(())
    }

    fn map_result(
        &self,
        name: &str,
        value: &Param,
        mapped: &mut MappedResults,
    ) -> Result<Rc<Artifact>, Failed> {
        let digest = match value {
            Param::Blob { digest, .. } => *digest,
            small => Digest::of(&self.read(small)?),
        };
        if let Some(known) = mapped.get(&digest).filter(|known| known.setup.name == name) {
            return Ok(known.clone());
        }
        let (path, file) = match value {
            Param::Blob { digest, .. } => {
                let path = self.verified_blob(*digest)?;
                let file = File::open(&path)?;
                (path.display().to_string(), file)
            }
            small => {
                let file = mapping::sealed_copy("forkyard-result", &self.read(small)?[..])?;
                (format!("result of {name}"), file)
            }
        };
        let artifact = Artifact::of_result(name, &path, file)
            .map_err(|error| Failed::new(format!("the result of {name} as an artifact: {error}")))?;
        let artifact = Rc::new(artifact);
        mapped.insert(digest, artifact.clone());
        Ok(artifact)
    }

    /// The node's number in the manifest's order.
    pub fn node(&self) -> NodeId {
        self.message.node
    }

    /// 1 for the first attempt, 2 after one failure or crash, ...
    pub fn attempt(&self) -> u32 {
        self.message.attempt
    }

    /// The parameter of this name, if the node gives it.
    ///
    /// # Errors
    /// When it is no `T`, or is a result that cannot be read.
    pub fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failed> {
        let Some(param) = self.raw(name) else { return Ok(None) };
        let parsed = match param {
            Param::Json(text) => serde_json::from_str(text),
            Param::List(_) => return Err(Failed::new("BUG: results one by one, and not for Python")),
            Param::Inline(kind, _) | Param::Blob { kind, .. } => {
                let bytes = self.read(param)?;
                match kind {
                    Kind::Json => serde_json::from_slice(&bytes),
                    Kind::Text => serde_json::from_value(String::from_utf8_lossy(&bytes).into()),
                    Kind::Bytes | Kind::Array => {
                        return Err(Failed::new(format!(
                            "parameter {name} is a result of bytes; the node that makes it can say output = \"json\" or \"text\""
                        )));
                    }
                }
            }
        };
        parsed.map(Some).map_err(|error| Failed::new(format!("parameter {name}: {error}")))
    }

    /// The parameter of this name.
    ///
    /// # Errors
    /// When the node does not give it, and as [`Task::optional`].
    pub fn param<T: DeserializeOwned>(&self, name: &str) -> Result<T, Failed> {
        self.optional(name)?.ok_or_else(|| Failed::new(format!("parameter {name} is missing")))
    }

    /// A list of numbers of this name, or an array of one dimension.
    ///
    /// # Errors
    /// As [`Task::optional`].
    pub(crate) fn numbers(&self, name: &str) -> Result<Option<Vec<f32>>, Failed> {
        match self.array(name)? {
            Some(rows) => Ok(Some(rows.concat())),
            None => self.optional(name),
        }
    }

    /// A list of lists of numbers of this name, or an array of two dimensions.
    ///
    /// # Errors
    /// As [`Task::optional`].
    pub(crate) fn many_numbers(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>, Failed> {
        match self.array(name)? {
            Some(rows) => Ok(Some(rows)),
            None => self.optional(name),
        }
    }

    /// The rows of a parameter that is a result, and an array.
    fn array(&self, name: &str) -> Result<Option<Vec<Vec<f32>>>, Failed> {
        let param = match self.raw(name) {
            Some(param @ (Param::Inline(Kind::Array, _) | Param::Blob { kind: Kind::Array, .. })) => param,
            _ => return Ok(None),
        };
        let failed = |error: &dyn std::fmt::Display| Failed::new(format!("parameter {name}: {error}"));
        let file = mapping::sealed_copy("forkyard-array", &self.read(param)?[..])?;
        let array = Artifact::of_result(name, name, file).map_err(|error| failed(&error))?;
        let matrix = matrix(&array)?;
        let rows = (0..matrix.shape().rows).map(|row| scan::row_as_f32(&matrix, row));
        Ok(Some(rows.collect::<Result<_, _>>().map_err(|error| failed(&error))?))
    }

    /// The state that the nodes share, as this one sees it.
    pub fn state(&self) -> &State<'a> {
        &self.state
    }

    /// The only artifact of the task as a matrix of (rows, columns).
    ///
    /// # Errors
    /// When the artifact is not a matrix.
    pub fn matrix(&self) -> Result<Matrix<'_>, Failed> {
        matrix(self.artifact()?)
    }

    /// The artifact of this name as a matrix of (rows, columns).
    ///
    /// # Errors
    /// When the node does not name it, or it is not a matrix.
    pub fn matrix_of(&self, name: &str) -> Result<Matrix<'_>, Failed> {
        matrix(self.artifact_of(name)?)
    }

    /// The only artifact of the task as records.
    ///
    /// # Errors
    /// When the artifact has no records.
    pub fn records(&self) -> Result<Records<'_>, Failed> {
        records(self.artifact()?)
    }

    /// The only artifact of the task as a decoded table, if it is one.
    ///
    /// # Errors
    /// When the task names no artifact.
    pub fn table(&self) -> Result<Option<Table<'_>>, Failed> {
        Ok(self.artifact()?.table().transpose()?)
    }

    /// The artifact of this name as records.
    ///
    /// # Errors
    /// When the node does not name it, or it has no records.
    pub fn records_of(&self, name: &str) -> Result<Records<'_>, Failed> {
        records(self.artifact_of(name)?)
    }

    /// The artifact of the task that is not the one of this name.
    pub(crate) fn artifact_beside(&self, name: Option<&str>) -> Result<&Artifact, Failed> {
        let others = || self.artifacts().filter(|artifact| Some(&*artifact.setup.name) != name);
        match others().count() {
            0 | 1 => others().next().ok_or_else(|| Failed::new("the node names no artifact to search")),
            _ => Err(Failed::new(
                "the node names several artifacts to search; it must be one, and that of `filter`",
            )),
        }
    }

    /// The only artifact of the task as an index of usearch.
    ///
    /// # Errors
    /// When the artifact is no such index.
    pub fn usearch(&self) -> Result<Usearch<'_>, Failed> {
        let artifact = self.artifact()?;
        Ok(artifact.usearch().ok_or_else(|| wrong_format(artifact, "a usearch index (.usearch)"))??)
    }

    /// The bytes of the only artifact of the task.
    ///
    /// # Errors
    /// When the task names none.
    pub fn artifact_bytes(&self) -> Result<&[u8], Failed> {
        Ok(self.artifact()?.bytes())
    }

    /// The bytes of the artifact of this name.
    ///
    /// # Errors
    /// When the node does not name it.
    pub fn bytes_of(&self, name: &str) -> Result<&[u8], Failed> {
        Ok(self.artifact_of(name)?.bytes())
    }

    pub(crate) fn artifact(&self) -> Result<&Artifact, Failed> {
        self.artifacts().next().ok_or_else(|| Failed::new("the node names no artifact"))
    }

    pub(crate) fn artifact_of(&self, name: &str) -> Result<&Artifact, Failed> {
        let found = self.artifacts().find(|artifact| artifact.setup.name == name);
        found.ok_or_else(|| Failed::new(format!("the node does not name the artifact \"{name}\"")))
    }

    pub(crate) fn artifacts(&self) -> impl Iterator<Item = &Artifact> {
        self.named_artifacts().chain(self.results.iter().map(Rc::as_ref))
    }

    /// Those of the run.
    pub(crate) fn named_artifacts(&self) -> impl Iterator<Item = &'a Artifact> {
        self.message.artifacts.iter().map(|id| &self.attached.artifacts[id.index()])
    }

    /// Results of other nodes that are its artifacts, by the nodes' names.
    pub(crate) fn results(&self) -> &'a [(String, Param)] {
        &self.message.artifact_results
    }

    /// All parameters, by name.
    pub(crate) fn params(&self) -> &'a [(String, Param)] {
        &self.message.params
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&'a Param> {
        let params = &self.message.params;
        let at = params.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(&params[at].1)
    }

    /// Parameters whose names start with `prefix`, with the rest of the name.
    pub(crate) fn with_prefix(&self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Param)> {
        self.message.params.iter().filter_map(move |(name, param)| Some((name.strip_prefix(prefix)?, param)))
    }

    /// The bytes of a result, checked against its digest.
    pub(crate) fn read(&self, param: &Param) -> Result<Vec<u8>, Failed> {
        match param {
            Param::Json(text) => Ok(text.clone().into_bytes()),
            Param::Inline(_, bytes) => Ok(bytes.clone()),
            Param::List(_) => Err(Failed::new("BUG: results one by one, and not for Python")),
            Param::Blob { digest, .. } => {
                blob::read(self.blobs_dir(), *digest).map_err(|error| missing(*digest, &error))
            }
        }
    }

    /// The file of a blob, once its bytes have been read and agree with its name.
    pub(crate) fn verified_blob(&self, digest: Digest) -> Result<PathBuf, Failed> {
        blob::plain(self.blobs_dir(), self.tmp_dir(), digest).map_err(|error| missing(digest, &error))
    }

    fn blobs_dir(&self) -> &'a Path {
        Path::new(&self.attached.setup.blobs_dir)
    }

    /// A place to write a result of any size.
    pub(crate) fn sink(&self) -> Guarded<'a> {
        self.sink_of(!self.message.plain)
    }

    /// The same, where what is written is to be read as it is.
    pub(crate) fn plain_sink(&self) -> Guarded<'a> {
        self.sink_of(false)
    }

    fn sink_of(&self, may_pack: bool) -> Guarded<'a> {
        let sink = Sink::new(self.tmp_dir(), &self.tmp_name(), INLINE_MAX_BYTES, may_pack);
        Guarded::new(sink.at_most(self.max_result()), self.secrets())
    }

    /// The most bytes that its result may have.
    pub(crate) fn max_result(&self) -> u64 {
        self.attached.setup.max_result
    }

    pub(crate) fn tmp_dir(&self) -> &'a Path {
        Path::new(&self.attached.setup.tmp_dir)
    }

    /// A name in `tmp/` that no other attempt uses.
    pub(crate) fn tmp_name(&self) -> String {
        format!("{}-{}-{}", std::process::id(), self.message.node.0, self.message.attempt)
    }

    pub(crate) fn run_token(&self) -> &'a str {
        &self.attached.setup.token
    }

    /// Names of variables that a command gets as they are.
    pub(crate) fn secret_names(&self) -> &'a [String] {
        &self.attached.setup.secrets
    }

    /// What is not to be stored.
    pub(crate) fn secrets(&self) -> &'a Secrets {
        &self.attached.secrets
    }
}

pub(crate) fn matrix(artifact: &Artifact) -> Result<Matrix<'_>, Failed> {
    Ok(artifact.matrix().ok_or_else(|| wrong_format(artifact, "a matrix"))??)
}

fn records(artifact: &Artifact) -> Result<Records<'_>, Failed> {
    Ok(artifact.records().ok_or_else(|| wrong_format(artifact, "records"))??)
}

fn wrong_format(artifact: &Artifact, wanted: &str) -> Failed {
    let setup = &artifact.setup;
    let hint = match setup.layout {
        Layout::Safetensors(_) => "; name one of its tensors: path = \"file#tensor\"",
        Layout::Table { .. } => "; name one of its columns: path = \"file#column\"",
        _ => "",
    };
    Failed::new(format!("artifact \"{}\" ({}) is not {wanted}{hint}", setup.name, setup.path))
}

fn missing(digest: Digest, error: &BlobError) -> Failed {
    match error {
        BlobError::Write(error) => Failed::of(error),
        _ => Failed::new(error.to_string()).because(Cause::Blob(digest)),
    }
}
