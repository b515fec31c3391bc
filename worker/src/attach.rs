//! What every worker finds in its memory at birth: the run's settings and the mapped artifacts. Made
//! by the zygote, once, and never changed or freed.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

use forkyard_shared::artifact::{ArtifactError, Layout, Matrix, Records};
use forkyard_shared::ids::ArtifactId;
use forkyard_shared::mapping::Mapping;
use forkyard_shared::protocol::{ArtifactSetup, Setup};
use forkyard_shared::sys;

/// What every worker of a run shares.
pub(crate) struct Attached {
    pub setup: Setup,
    /// Its flock is held for as long as any process of the pool has it open.
    pub _lock: OwnedFd,
    pub pulses: OwnedFd,
    pub artifacts: Vec<Artifact>,
}

/// One artifact, mapped.
pub(crate) struct Artifact {
    pub setup: ArtifactSetup,
    file: File,
    bytes: &'static [u8],
    table: &'static [u8],
}

impl Artifact {
    /// Maps an artifact and brings it into memory.
    pub fn map(setup: ArtifactSetup, file: OwnedFd, table: Option<OwnedFd>) -> std::io::Result<Artifact> {
        let map = |file: &File| -> std::io::Result<&'static [u8]> {
            let mapping: &'static Mapping = Box::leak(Box::new(Mapping::of(file)?));
            mapping.populate();
            Ok(mapping)
        };
        let file = File::from(file);
        let bytes = map(&file)?;
        let table = table.map_or(Ok(&[][..]), |table| map(&File::from(table)))?;
        Ok(Artifact { setup, file, bytes, table })
    }

    /// All its bytes.
    pub fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    /// The matrix that it is, if it is one.
    pub fn matrix(&self) -> Option<Result<Matrix<'_>, ArtifactError>> {
        match &self.setup.layout {
            Layout::Npy(shape) => Some(Matrix::new(shape, self.bytes)),
            _ => None,
        }
    }

    /// The records that it holds, if it holds any.
    pub fn records(&self) -> Option<Result<Records<'static>, ArtifactError>> {
        matches!(self.setup.layout, Layout::Jsonl(_)).then(|| Records::new(self.bytes, self.table))
    }

    /// A path under which a command finds the same bytes, for as long as this process lives: the file that is
    /// mapped, whatever its name means by now.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

impl Attached {
    /// Turns a SIGBUS in any of the mappings into a mark on its artifact.
    pub fn guard(&self) -> std::io::Result<()> {
        sys::guard_mappings(&self.artifacts.iter().map(|a| a.bytes).collect::<Vec<_>>())
    }

    /// An artifact of which a part vanished, among those that a task names.
    pub fn struck(&self, named: &[ArtifactId]) -> Option<ArtifactId> {
        named.iter().copied().find(|id| sys::mapping_struck(id.index()))
    }
}
