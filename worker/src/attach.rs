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
use forkyard_shared::artifact::{
    ArtifactError, Layout, Matrix, Records, Shape, Table, Usearch, index_jsonl, read_npy,
};
use forkyard_shared::ids::ArtifactId;
use forkyard_shared::mapping::{self, Mapping};
use forkyard_shared::protocol::{ArtifactSetup, Setup};
use forkyard_shared::scan::Metric;
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
    beside_file: Option<File>,
    bytes: Map,
    /// What goes along with the file: an offset table, names, or what was decoded from it.
    beside: Map,
    /// The matrix that it is.
    shape: Option<Shape>,
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
    pub fn map(setup: ArtifactSetup, file: OwnedFd, beside: Option<OwnedFd>) -> std::io::Result<Artifact> {
        let map = |file: &File| -> std::io::Result<Map> {
            let mapping: &'static Mapping = Box::leak(Box::new(Mapping::of(file)?));
            mapping.populate();
            Ok(Map::Forever(mapping))
        };
        let file = File::from(file);
        let bytes = map(&file)?;
        let beside_file = beside.map(File::from);
        let beside = beside_file.as_ref().map_or(Ok(Map::Forever(&[])), map)?;
        let shape = setup.layout.matrix();
        Ok(Artifact { setup, file, beside_file, bytes, beside, shape })
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
        let beside = table.map_or(Map::Forever(&[]), Map::Owned);
        let shape = setup.layout.matrix();
        Ok(Artifact { setup, file, beside_file: None, bytes, beside, shape })
    }

    /// All its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The matrix that it is, if it is one.
    pub fn matrix(&self) -> Option<Result<Matrix<'_>, ArtifactError>> {
        let bytes = if matches!(self.setup.layout, Layout::Column(_)) { &self.beside } else { &self.bytes };
        self.shape.as_ref().map(|shape| Matrix::new(shape, bytes))
    }

    /// How its rows are compared if nobody says so, where it knows.
    pub fn metric(&self) -> Option<Metric> {
        match self.setup.layout {
            Layout::Faiss(_, metric) => Some(metric),
            _ => None,
        }
    }

    /// The records that it holds, if it holds any.
    pub fn records(&self) -> Option<Result<Records<'_>, ArtifactError>> {
        let has_records = matches!(self.setup.layout, Layout::Jsonl(_) | Layout::Json(_));
        has_records.then(|| Records::new(&self.bytes, &self.beside))
    }

    /// The table that was decoded from it, if one was.
    pub fn table(&self) -> Option<Result<Table<'_>, ArtifactError>> {
        matches!(self.setup.layout, Layout::Table { .. }).then(|| Table::new(&self.beside))
    }

    /// The index that it is, if it is one.
    pub fn usearch(&self) -> Option<Result<Usearch<'_>, ArtifactError>> {
        match &self.setup.layout {
            Layout::Usearch(layout) => Some(Usearch::new(layout, &self.bytes, &self.beside)),
            _ => None,
        }
    }

    /// Its file, and what goes along with it if anything does.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        [Some(&self.file), self.beside_file.as_ref()].into_iter().flatten().map(|file| file.as_fd()).collect()
    }

    /// A path under which a command finds the same bytes, for as long as this process lives: the file that is
    /// mapped, whatever its name means by now.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The suffix by which programs tell what it is.
    pub fn suffix(&self) -> &OsStr {
        // Without a suffix of its own it is a result.
        let format = match self.setup.layout {
            Layout::Npy(_) => "npy",
            Layout::Jsonl(_) => "jsonl",
            Layout::Usearch(_) => "usearch",
            _ => "",
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
