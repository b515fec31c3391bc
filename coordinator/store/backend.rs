//! What a layout does: it keeps results by key, and the values that are too large for their result. Everything
//! above (groups, journals, checks, cleaning up) is the same for all of them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{ArtifactId, NodeId};
use forkyard_shared::value::Kind;

use super::dir::StoreDir;
use super::error::StoreError;
use super::files::Files;
use super::format::Layout;
use super::index::Index;
use super::record::{Place, Record};
use super::salvage;
use super::sqlite::{self, Sqlite};

/// A result to be stored.
pub(crate) struct NewResult {
    pub node: NodeId,
    pub key: Digest,
    pub kind: Kind,
    pub digest: Digest,
    pub value: NewValue,
    pub duration: Duration,
    /// The artifacts that it was computed from.
    pub artifacts: Vec<ArtifactId>,
    /// Whether other nodes may read it in this run.
    pub wanted: bool,
    /// What the node did besides: an encoded [`super::record::Extra`].
    pub extra: Vec<u8>,
}

/// Where the value of a [`NewResult`] is.
pub(crate) enum NewValue {
    Bytes(Vec<u8>),
    /// Already where workers read large values, but its directory is not synced yet.
    File {
        len: u64,
    },
}

impl NewResult {
    /// Its record, once its value has a place.
    pub(super) fn record(&self, place: Place, run: u64) -> Record {
        let len = match &self.value {
            NewValue::Bytes(bytes) => bytes.len() as u64,
            NewValue::File { len } => *len,
        };
        let duration_us = self.duration.as_micros() as u64;
        let extra = self.extra.clone();
        Record { kind: self.kind, digest: self.digest, place, len, duration_us, run, extra }
    }
}

/// A stored result, or the bytes of a damaged one.
pub(crate) type Found = Result<Record, Vec<u8>>;

/// The results of one store. The holder of the store's lock changes it; anybody may read it meanwhile.
pub(crate) trait Backend: Send {
    /// Stores results. When it returns, all of them are on the disk, values before the results that name them;
    /// if it fails, none counts. Returns their records.
    fn commit(&mut self, results: &[NewResult], run: u64) -> Result<Vec<Record>, StoreError>;

    /// Does some of the work that commits put off, unless `stop` is set meanwhile; whether there is more. Killed
    /// in it, it has changed nothing that can be seen.
    fn fold(&mut self, stop: &AtomicBool) -> Result<bool, StoreError>;

    /// Whether what was put off is so much that it should be done before anything else.
    fn fold_is_due(&self) -> bool;

    /// Takes all results into memory if there are no more than `most` and that makes look-ups quicker.
    fn learn(&mut self, most: u64) -> Result<(), StoreError>;

    /// All results, as they were then, if they are in memory.
    fn learnt(&self) -> Option<Arc<Index>>;

    /// The result of a key.
    fn lookup(&self, key: Digest) -> Option<Found>;

    /// Hands out all results; of several of one key the last one counts.
    fn each(&self, each: &mut dyn FnMut(Digest, Found)) -> Result<(), StoreError>;

    /// Writes the value that starts at a [`Place::Row`]; unchecked.
    fn copy_rows(&self, first: i64, len: u64, out: &mut dyn Write) -> Result<(), StoreError>;

    /// Whether what is read from now on is of one moment, where the layout can do that: then reading is quicker,
    /// but what a run writes meanwhile takes more room.
    fn hold_moment(&self, hold: bool);

    /// Removes the results of these keys.
    fn forget(&mut self, keys: &[Digest]) -> Result<(), StoreError>;

    /// Removes all rows of values but those of `live` places, and gives the room back; whether no reader was in the
    /// way of that.
    fn sweep(&mut self, live: &[(i64, u64)]) -> Result<bool, StoreError>;
}

/// A store that is not there yet: it has no results, and takes none.
pub(super) struct Nothing;

impl Backend for Nothing {
    fn commit(&mut self, _: &[NewResult], _: u64) -> Result<Vec<Record>, StoreError> {
        Ok(Vec::new())
    }

    fn fold(&mut self, _: &AtomicBool) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn fold_is_due(&self) -> bool {
        false
    }

    fn learn(&mut self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn learnt(&self) -> Option<Arc<Index>> {
        Some(Arc::default())
    }

    fn lookup(&self, _: Digest) -> Option<Found> {
        None
    }

    fn each(&self, _: &mut dyn FnMut(Digest, Found)) -> Result<(), StoreError> {
        Ok(())
    }

    fn copy_rows(&self, _: i64, _: u64, _: &mut dyn Write) -> Result<(), StoreError> {
        Ok(())
    }

    fn hold_moment(&self, _: bool) {}

    fn forget(&mut self, _: &[Digest]) -> Result<(), StoreError> {
        Ok(())
    }

    fn sweep(&mut self, _: &[(i64, u64)]) -> Result<bool, StoreError> {
        Ok(true)
    }
}

/// Makes the files of a new store.
pub(super) fn create(dir: &StoreDir, layout: Layout) -> Result<(), StoreError> {
    match layout {
        Layout::Sqlite | Layout::Hybrid => sqlite::create_at(&dir.database_path()),
        Layout::Filesystem => Files::create(dir),
    }
}

/// Opens a store that is there.
pub(super) fn open(dir: &StoreDir, layout: Layout) -> Result<Box<dyn Backend>, StoreError> {
    Ok(match layout {
        Layout::Sqlite | Layout::Hybrid => Box::new(Sqlite::open(dir, layout)?),
        Layout::Filesystem => Box::new(Files::open(dir)),
    })
}

/// Makes a store readable again whose files are damaged as a whole: what there is to say of it, and the results that
/// are lost; `None` when nothing is wrong. The caller holds the store's lock.
pub(super) fn salvage(dir: &StoreDir, layout: Layout) -> Result<Option<(String, Vec<Digest>)>, StoreError> {
    match layout {
        Layout::Sqlite | Layout::Hybrid => salvage::salvage(dir),
        Layout::Filesystem => Ok(None),
    }
}
