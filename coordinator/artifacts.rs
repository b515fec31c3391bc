//! Artifacts on the coordinator's side: opened, understood and hashed with `pread`, never mapped here; and
//! watched, because the file behind a mapping can be changed by anybody.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use forkyard_shared::artifact::{self, Format, Layout};
use forkyard_shared::digest::Digest;
use forkyard_shared::mapping;
use forkyard_shared::protocol::ArtifactSetup;

use crate::manifest::ArtifactEntry;
use crate::store::DigestMemo;

/// An artifact that was found to be what its name says.
pub(crate) struct OpenArtifact {
    pub entry: ArtifactEntry,
    pub layout: Layout,
    pub bytes: u64,
    /// What is mapped: the file, or a sealed copy of it.
    file: File,
    table: Option<File>,
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
        let (layout, table) = read_layout(entry, &file, bytes).map_err(|error| problem(&error))?;
        let table = table.map(|table| mapping::sealed_copy("forkyard-table", &table[..])).transpose();
        let table = table.map_err(|error| problem(&error))?;
        Ok(OpenArtifact { entry: entry.clone(), layout, bytes, file, table, seen })
    }

    /// How many rows or records it has; bytes have none.
    pub fn rows(&self) -> Option<u64> {
        match &self.layout {
            Layout::Raw => None,
            Layout::Npy(shape) => Some(shape.rows),
            Layout::Jsonl(layout) => Some(layout.records),
        }
    }

    /// A record as JSON text; of a matrix the number of the row.
    pub fn row(&self, row: u64) -> std::io::Result<Vec<u8>> {
        let Some(table) = &self.table else { return Ok(row.to_string().into_bytes()) };
        // Where it starts and where the next one does: see `Records`.
        let mut ends = [[0; 8]; 2];
        table.read_exact_at(ends.as_flattened_mut(), 16 + 8 * row)?;
        let [from, to] = ends.map(u64::from_le_bytes);
        let mut line = vec![0; to.saturating_sub(from) as usize];
        self.file.read_exact_at(&mut line, from)?;
        // Keys sorted and no spaces, as all JSON here.
        let record: serde_json::Value = serde_json::from_slice(&line)?;
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
        let (format, shape, dtype) = match &self.layout {
            Layout::Raw => ("raw", None, None),
            Layout::Npy(shape) if shape.one_dimensional => {
                ("npy", Some(vec![shape.rows]), Some(shape.dtype.name()))
            }
            Layout::Npy(shape) => ("npy", Some(vec![shape.rows, shape.cols]), Some(shape.dtype.name())),
            Layout::Jsonl(records) => ("jsonl", Some(vec![records.records]), None),
        };
        serde_json::json!({ "name": self.entry.name, "format": format, "bytes": self.bytes, "sha256": digest.to_hex(), "shape": shape, "dtype": dtype })
    }

    /// What the zygote needs to map it.
    pub fn setup(&self) -> std::io::Result<(ArtifactSetup, Vec<OwnedFd>)> {
        let setup = ArtifactSetup {
            name: self.entry.name.clone(),
            path: std::path::absolute(&self.entry.path)?.to_string_lossy().into_owned(),
            pinned: self.entry.pin,
            layout: self.layout.clone(),
        };
        let fds = [Some(&self.file), self.table.as_ref()].into_iter().flatten();
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
        match &self.layout {
            Layout::Raw => format!("raw, {}", crate::text::bytes(self.bytes)),
            Layout::Npy(shape) if shape.one_dimensional => {
                format!("npy, {} x {}, {}", shape.rows, shape.dtype.name(), crate::text::bytes(self.bytes))
            }
            Layout::Npy(shape) => {
                format!(
                    "npy, {} rows x {} {}, {}",
                    shape.rows,
                    shape.cols,
                    shape.dtype.name(),
                    crate::text::bytes(self.bytes)
                )
            }
            Layout::Jsonl(records) => {
                let [count, keyed] = [(records.records, "record"), (records.keyed, "key")]
                    .map(|(number, noun)| crate::text::plural(number as usize, noun));
                format!("jsonl, {count}, {keyed}, {}", crate::text::bytes(self.bytes))
            }
        }
    }
}

fn same(now: &Metadata, seen: &Metadata) -> bool {
    let what = |m: &Metadata| (m.size(), m.mtime(), m.mtime_nsec(), m.ino(), m.dev());
    what(now) == what(seen)
}

fn read_layout(
    entry: &ArtifactEntry,
    file: &File,
    bytes: u64,
) -> Result<(Layout, Option<Vec<u8>>), artifact::ArtifactError> {
    Ok(match entry.format {
        Format::Raw => (Layout::Raw, None),
        Format::Npy => (Layout::Npy(artifact::read_npy(file, bytes)?), None),
        Format::Jsonl => {
            let (table, layout) = artifact::index_jsonl(file, bytes, &entry.key)?;
            (Layout::Jsonl(layout), Some(table))
        }
    })
}
