//! What every worker finds in its memory at birth: the run's settings and the mapped artifacts. Made
//! by the zygote, once, and never changed or freed.

use std::cell::OnceCell;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use forkyard_shared::arena::ArenaReader;
use forkyard_shared::artifact::{ArtifactError, Layout, Matrix, Records, Usearch, index_jsonl, read_npy};
use forkyard_shared::ids::ArtifactId;
use forkyard_shared::mapping::{self, Mapping};
use forkyard_shared::protocol::{ArtifactSetup, Setup};
use forkyard_shared::sys;

use crate::secrets::Secrets;

/// What every worker of a run shares.
pub(crate) struct Attached {
    pub setup: Setup,
    /// Its flock is held for as long as any process of the pool has it open.
    pub _lock: OwnedFd,
    pub pulses: OwnedFd,
    pub arena: ArenaReader,
    pub artifacts: Vec<Artifact>,
    pub secrets: Secrets,
    /// Where a worker asks for a Python process, if the run has any Python.
    pub python: OnceCell<OwnedFd>,
}

/// One artifact, mapped.
pub(crate) struct Artifact {
    pub setup: ArtifactSetup,
    file: File,
    table_file: Option<File>,
    bytes: Map,
    table: Map,
}

/// A mapping: one that was made before the fork stays for as long as any process does.
enum Map {
    Forever(&'static [u8]),
    Owned(Mapping),
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Map::Forever(bytes) => bytes,
            Map::Owned(mapping) => mapping,
        }
    }
}

impl Artifact {
    /// Maps an artifact of the run and brings it into memory.
    pub fn map(setup: ArtifactSetup, file: OwnedFd, table: Option<OwnedFd>) -> std::io::Result<Artifact> {
        let map = |file: &File| -> std::io::Result<Map> {
            let mapping: &'static Mapping = Box::leak(Box::new(Mapping::of(file)?));
            mapping.populate();
            Ok(Map::Forever(mapping))
        };
        let file = File::from(file);
        let bytes = map(&file)?;
        let table_file = table.map(File::from);
        let table = table_file.as_ref().map_or(Ok(Map::Forever(&[])), map)?;
        Ok(Artifact { setup, file, table_file, bytes, table })
    }

    /// Maps the result of node `name`, which lies at `path`; its first bytes tell its format.
    ///
    /// # Errors
    /// When it cannot be mapped, or is not what it starts like.
    pub fn of_result(name: &str, path: &str, file: File) -> Result<Artifact, Box<dyn Error + Send + Sync>> {
        let len = file.metadata()?.len();
        let mut start = [0; 6];
        let read = file.read_at(&mut start, 0)?;
        let (layout, table) = match &start[..read] {
            b"\x93NUMPY" => (Layout::Npy(read_npy(&file, len)?), None),
            [b'{', ..] => match index_jsonl(&file, len, "id") {
                Ok((table, layout)) => {
                    let table = Mapping::of(&mapping::sealed_copy("forkyard-table", &table[..])?)?;
                    (Layout::Jsonl(layout), Some(table))
                }
                // Other text starts with a brace too.
                Err(_) => (Layout::Raw, None),
            },
            _ => (Layout::Raw, None),
        };
        let setup = ArtifactSetup { name: name.into(), path: path.into(), pinned: true, layout };
        let bytes = if len == 0 { Map::Forever(&[]) } else { Map::Owned(Mapping::of(&file)?) };
        let table = table.map_or(Map::Forever(&[]), Map::Owned);
        Ok(Artifact { setup, file, table_file: None, bytes, table })
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The matrix that it is, if it is one.
    pub fn matrix(&self) -> Option<Result<Matrix<'_>, ArtifactError>> {
        match &self.setup.layout {
            Layout::Npy(shape) => Some(Matrix::new(shape, &self.bytes)),
            _ => None,
        }
    }

    /// The records that it holds, if it holds any.
    pub fn records(&self) -> Option<Result<Records<'_>, ArtifactError>> {
        matches!(self.setup.layout, Layout::Jsonl(_)).then(|| Records::new(&self.bytes, &self.table))
    }

    /// The index that it is, if it is one.
    pub fn usearch(&self) -> Option<Result<Usearch<'_>, ArtifactError>> {
        match &self.setup.layout {
            Layout::Usearch(layout) => Some(Usearch::new(layout, &self.bytes, &self.table)),
            _ => None,
        }
    }

    /// Its file, and that of its table if it has one.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        [Some(&self.file), self.table_file.as_ref()].into_iter().flatten().map(|file| file.as_fd()).collect()
    }

    /// A path under which a command finds the same bytes, for as long as this process lives: the file that is
    /// mapped, whatever its name means by now.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The suffix by which programs tell what it is.
    pub fn suffix(&self) -> &OsStr {
        let format = match self.setup.layout {
            Layout::Raw => "",
            Layout::Npy(_) => "npy",
            Layout::Jsonl(_) => "jsonl",
            Layout::Usearch(_) => "usearch",
        };
        Path::new(&self.setup.path).extension().unwrap_or(OsStr::new(format))
    }
}

impl Attached {
    /// Turns a SIGBUS in any of the mappings into a mark on its artifact.
    pub fn guard(&self) -> std::io::Result<()> {
        let shared = |artifact: &Artifact| match artifact.bytes {
            Map::Forever(bytes) => bytes,
            Map::Owned(_) => &[],
        };
        sys::guard_mappings(&self.artifacts.iter().map(shared).collect::<Vec<_>>())
    }

    /// An artifact of which a part vanished, among those that a task names.
    pub fn struck(&self, named: &[ArtifactId]) -> Option<ArtifactId> {
        named.iter().copied().find(|id| sys::mapping_struck(id.index()))
    }
}
