//! Artifacts on the coordinator's side: opened, understood and hashed with `pread`, never mapped here; and
//! watched, because the file behind a mapping can be changed by anybody.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use forkyard_shared::ann::EXPANSION;
use forkyard_shared::artifact::{
    self, Array, Layout, RECORDS_HEADER_BYTES, Reading, Records, Table, UsearchLayout,
};
use forkyard_shared::digest::Digest;
use forkyard_shared::mapping;
use forkyard_shared::protocol::ArtifactSetup;
use forkyard_shared::scan::Metric;

use crate::manifest::ArtifactEntry;
use crate::memory::Machine;
use crate::store::DigestMemo;

/// An artifact that was found to be what its name says.
pub(crate) struct OpenArtifact {
    pub entry: ArtifactEntry,
    pub layout: Layout,
    pub bytes: u64,
    /// What is mapped: the file, or a sealed copy of it.
    file: File,
    /// What goes along with it: an offset table, names, or what was decoded from it.
    beside: Option<File>,
    beside_bytes: u64,
    seen: Metadata,
}

/// An artifact that cannot be used.
#[derive(Debug)]
pub struct ArtifactProblem {
    name: String,
    path: PathBuf,
    reason: String,
}

impl fmt::Display for ArtifactProblem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "artifact \"{}\" ({}): {}", self.name, self.path.display(), self.reason)
    }
}

impl std::error::Error for ArtifactProblem {}

impl ArtifactProblem {
    pub(crate) fn of(entry: &ArtifactEntry, reason: impl fmt::Display) -> ArtifactProblem {
        ArtifactProblem { name: entry.name.clone(), path: entry.path.clone(), reason: reason.to_string() }
    }
}

impl OpenArtifact {
    /// Opens an artifact and reads what its bytes mean.
    pub fn open(entry: &ArtifactEntry) -> Result<OpenArtifact, ArtifactProblem> {
        let problem = |reason: &dyn fmt::Display| ArtifactProblem::of(entry, reason);
        let named = fs::metadata(&entry.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => problem(&"there is no such file"),
            _ => problem(&error),
        })?;
        if named.is_dir() {
            return Err(problem(&"is a directory, not a file"));
        }
        // Before it is opened: the open of a named pipe waits for somebody who writes to it.
        if !named.is_file() {
            return Err(problem(&"is not a regular file, so it cannot be mapped"));
        }
        let mut file = File::open(&entry.path).map_err(|error| problem(&error))?;
        let seen = file.metadata().map_err(|error| problem(&error))?;
        if entry.pin {
            file = mapping::sealed_copy("forkyard-artifact", &file).map_err(|error| problem(&error))?;
            file.rewind().map_err(|error| problem(&error))?;
        }
        let bytes = file.metadata().map_err(|error| problem(&error))?.len();
        if bytes == 0 {
            return Err(problem(&"is empty"));
        }
        let mut beside = mapping::unsealed("forkyard-beside").map_err(|error| problem(&error))?;
        let reading = Reading {
            format: entry.format,
            part: entry.part.as_deref(),
            key: &entry.key,
            // Unknown is no reason to stop.
            limit_bytes: Machine::here().look().map_or(u64::MAX, |rooms| rooms.available() / 2),
        };
        let layout = artifact::read(&file, bytes, &reading, &mut beside).map_err(|error| problem(&error))?;
        mapping::seal(&beside).map_err(|error| problem(&error))?;
        let beside_bytes = beside.metadata().map_err(|error| problem(&error))?.len();
        let beside = (beside_bytes > 0).then_some(beside);
        Ok(OpenArtifact { entry: entry.clone(), layout, bytes, file, beside, beside_bytes, seen })
    }

    /// How many rows or records it has; bytes have none.
    pub fn rows(&self) -> Option<u64> {
        self.layout.rows()
    }

    /// What it takes of memory, once for all.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes + self.beside_bytes
    }

    /// A record as JSON text; of anything else the number of the row.
    pub fn row(&self, row: u64) -> std::io::Result<Vec<u8>> {
        let (Layout::Jsonl(_) | Layout::Json(_), Some(table)) = (&self.layout, &self.beside) else {
            return Ok(row.to_string().into_bytes());
        };
        let mut span = [[0; 8]; 2];
        table.read_exact_at(span.as_flattened_mut(), Records::span_offset(row))?;
        let [from, to] = span.map(u64::from_le_bytes);
        let mut text = vec![0; to.saturating_sub(from) as usize];
        self.file.read_exact_at(&mut text, from)?;
        let mut header = [0; RECORDS_HEADER_BYTES];
        table.read_exact_at(&mut header, 0)?;
        let text = Records::of_span(&header, &text).unwrap_or_default();
        // Keys sorted and no spaces, as all JSON here.
        let record: serde_json::Value = serde_json::from_slice(text)?;
        Ok(record.to_string().into_bytes())
    }

    /// Its digest, remembered if possible.
    pub fn digest(&self, memo: &mut DigestMemo) -> Result<Digest, ArtifactProblem> {
        memo.digest(&self.file).map_err(|error| ArtifactProblem::of(&self.entry, error))
    }

    /// Whether its digest is remembered from an earlier run.
    pub fn digest_is_known(&self, memo: &DigestMemo) -> bool {
        self.file.metadata().is_ok_and(|metadata| memo.remembered(&metadata).is_some())
    }

    /// The fields of its `artifact_mapped` event.
    pub fn event(&self, digest: Digest) -> serde_json::Value {
        let array = |array: &Array| (Some(array.shape.clone()), Some(array.dtype.name()), None);
        let (shape, dtype, metric) = match &self.layout {
            Layout::Raw => (None, None, None),
            Layout::Npy(shape) if shape.one_dimensional => {
                (Some(vec![shape.rows]), Some(shape.dtype.name()), None)
            }
            Layout::Npy(shape) => (Some(vec![shape.rows, shape.cols]), Some(shape.dtype.name()), None),
            Layout::Faiss(shape, metric) => {
                (Some(vec![shape.rows, shape.cols]), Some(shape.dtype.name()), Some(metric.name()))
            }
            Layout::Jsonl(records) | Layout::Json(records) => (Some(vec![records.records]), None, None),
            Layout::Safetensors(tensors) => (Some(vec![*tensors]), None, None),
            Layout::Tensor(tensor) | Layout::Column(tensor) => array(tensor),
            Layout::Table { rows, columns } => (Some(vec![*rows, *columns]), None, None),
            Layout::Usearch(UsearchLayout { vectors, metric, .. }) => {
                (Some(vec![vectors.rows, vectors.cols]), Some(vectors.dtype.name()), Some(metric.name()))
            }
        };
        let mut event = serde_json::json!({
            "name": self.entry.name, "format": self.entry.format.name(), "bytes": self.bytes, "sha256": digest.to_hex(),
            "shape": shape, "dtype": dtype,
        });
        if let Some(metric) = metric {
            event["metric"] = metric.into();
        }
        if let Some(part) = &self.entry.part {
            event["part"] = part.as_str().into();
        }
        event
    }

    /// What is in it, a line each: its tensors or columns.
    pub fn parts(&self) -> std::io::Result<Vec<String>> {
        let Some(beside) = &self.beside else { return Ok(Vec::new()) };
        let mut bytes = vec![0; self.beside_bytes as usize];
        match self.layout {
            Layout::Safetensors(_) => {
                beside.read_exact_at(&mut bytes, 0)?;
                let tensors: Vec<(String, Array)> = serde_json::from_slice(&bytes)?;
                Ok(tensors.iter().map(|(name, array)| format!("{name}: {}", array.describe())).collect())
            }
            Layout::Table { .. } => {
                beside.read_exact_at(&mut bytes, 0)?;
                let table = Table::new(&bytes).map_err(std::io::Error::other)?;
                Ok(table
                    .columns()
                    .iter()
                    .map(|column| format!("{}: {}", column.name, column.describe()))
                    .collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What the zygote needs to map it.
    pub fn setup(&self) -> std::io::Result<(ArtifactSetup, Vec<OwnedFd>)> {
        let setup = ArtifactSetup {
            name: self.entry.name.clone(),
            path: std::path::absolute(&self.entry.path)?.to_string_lossy().into_owned(),
            pinned: self.entry.pin,
            layout: self.layout.clone(),
        };
        let fds = [Some(&self.file), self.beside.as_ref()].into_iter().flatten();
        Ok((setup, fds.map(|file| file.try_clone().map(OwnedFd::from)).collect::<Result<_, _>>()?))
    }

    /// A way to ask later whether the mapped file is still as it was when it was opened. (Another file
    /// under the same name does not matter: the mapping is of this one.)
    pub fn watch(&self) -> std::io::Result<impl Fn() -> bool + Send + use<>> {
        let (file, seen, pinned) = (self.file.try_clone()?, self.seen.clone(), self.entry.pin);
        Ok(move || pinned || file.metadata().is_ok_and(|now| same(&now, &seen)))
    }

    /// One line about what it is.
    pub fn describe(&self) -> String {
        let plural = |number: u64, noun| crate::text::plural(number as usize, noun);
        let what = match &self.layout {
            Layout::Raw => None,
            Layout::Npy(shape) if shape.one_dimensional => {
                Some(format!("{} x {}", shape.rows, shape.dtype.name()))
            }
            Layout::Npy(shape) => {
                Some(format!("{} rows x {} {}", shape.rows, shape.cols, shape.dtype.name()))
            }
            Layout::Faiss(shape, metric) => Some(format!(
                "{} rows x {} {}, compared by {}",
                shape.rows,
                shape.cols,
                shape.dtype.name(),
                metric.name()
            )),
            Layout::Jsonl(records) | Layout::Json(records) => {
                Some(format!("{}, {}", plural(records.records, "record"), plural(records.keyed, "key")))
            }
            Layout::Usearch(index) => Some(describe_usearch(index)),
            Layout::Safetensors(tensors) => Some(plural(*tensors, "tensor")),
            Layout::Tensor(array) | Layout::Column(array) => Some(array.describe()),
            Layout::Table { rows, columns } => {
                Some(format!("{}, {}", plural(*rows, "row"), plural(*columns, "column")))
            }
        };
        let part = self.entry.part.as_ref().map(|part| {
            format!(
                "{} {part:?}",
                self.entry.format.part_noun().expect("what has parts calls them something")
            )
        });
        let decoded = matches!(self.layout, Layout::Table { .. } | Layout::Column(_))
            .then(|| format!("{} decoded", crate::text::bytes(self.beside_bytes)));
        let words = [
            Some(self.entry.format.name().into()),
            part,
            what,
            Some(crate::text::bytes(self.bytes)),
            decoded,
        ];
        words.into_iter().flatten().collect::<Vec<String>>().join(", ")
    }
}

/// What can be asked of an index, and how well it will answer.
fn describe_usearch(index: &UsearchLayout) -> String {
    let UsearchLayout { vectors, removed, connectivity, connectivity_base, max_level, .. } = index;
    let metric = match index.metric {
        Metric::Cosine => "cos",
        Metric::Dot => "ip",
        Metric::L2 => "l2sq",
    };
    let removed = if *removed == 0 { String::new() } else { format!(" ({removed} removed)") };
    let [major, minor, patch] = index.version;
    format!(
        "version {major}.{minor}.{patch}, {} vectors{removed} x {} {}, metric {metric}, connectivity {connectivity} \
         ({connectivity_base} on level 0), {} levels, expansion {EXPANSION} unless the node says more",
        vectors.rows,
        vectors.cols,
        vectors.dtype.name(),
        max_level + 1
    )
}

fn same(now: &Metadata, seen: &Metadata) -> bool {
    let what = |m: &Metadata| (m.size(), m.mtime(), m.mtime_nsec(), m.ino(), m.dev());
    what(now) == what(seen)
}
