//! Reading from a store. Whatever is read is checked; what does not fit its check or its digest is never
//! handed out.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;

use forkyard_shared::blob::blob_path;
use forkyard_shared::digest::Digest;

use super::database::{Database, OpenError};
use super::index::Index;
use super::layout::{Layout, StoreError};
use super::record::{Place, Record};

/// Looks results up and reads values.
pub(crate) struct Reader {
    layout: Layout,
    database: Database,
    index: Index,
    /// Whether the index holds everything the database does.
    complete: bool,
    /// What the database was like when it was learnt.
    seen: Option<(i64, i64)>,
    /// Small blobs whose bytes were found damaged: their nodes run anew.
    distrusted: RefCell<HashSet<Digest>>,
}

/// A store is learnt whole if it holds at most so many results for each key that will be looked up.
const LEARN_PER_LOOK_UP: u64 = 8;

impl Reader {
    /// For a run, which holds the lock and will look up some `expected` keys: learns the store in one pass where
    /// that is cheaper than asking for each. An `early` look at it will do if nothing has changed since.
    pub fn for_run(layout: &Layout, expected: usize, early: Option<Reader>) -> Result<Reader, StoreError> {
        drop(layout.create_database()?);
        let mut reader = match early {
            Some(early) => early,
            None => Reader::open(layout)?,
        };
        let learn = |reader: &mut Reader| -> rusqlite::Result<()> {
            let whole = LEARN_PER_LOOK_UP * (expected as u64 + 100);
            let missed = !reader.complete && reader.database.folded_count()? <= whole;
            if missed || reader.seen != Some(reader.database.state()?) { reader.learn(whole) } else { Ok(()) }
        };
        learn(&mut reader).map_err(|error| layout.database_error(OpenError::Sqlite(error)))?;
        Ok(reader)
    }

    /// For somebody who only looks, perhaps while a run goes on: learns the store if it has at most `whole` results.
    pub fn look(layout: &Layout, whole: u64) -> Result<Reader, StoreError> {
        let mut reader = Reader::open(layout)?;
        reader.learn(whole).map_err(|error| layout.database_error(OpenError::Sqlite(error)))?;
        Ok(reader)
    }

    fn open(layout: &Layout) -> Result<Reader, StoreError> {
        let database = layout.read_database()?;
        let (layout, index, distrusted) = (layout.clone(), Index::default(), RefCell::default());
        Ok(Reader { layout, database, index, complete: false, seen: None, distrusted })
    }

    fn learn(&mut self, whole: u64) -> rusqlite::Result<()> {
        // One snapshot: a fold must not move results from the table that is read last to the one read first.
        self.database.begin_reading()?;
        let learnt = self.learn_now(whole);
        self.database.rollback();
        learnt
    }

    fn learn_now(&mut self, whole: u64) -> rusqlite::Result<()> {
        self.seen = Some(self.database.state()?);
        self.complete = self.database.folded_count()? <= whole;
        self.index = Index::default();
        let index = &mut self.index;
        if self.complete {
            self.database.folded(|key, record| index.put(key, record))?;
        }
        self.database.unfolded(|key, record| index.put(key, record))
    }

    /// The stored result of a key. A damaged row, or one whose blob is not there, is none.
    pub fn lookup(&self, key: Digest) -> Option<Record> {
        let record = match self.index.get(key) {
            Some(bytes) => Record::decode(key, bytes)?,
            None if self.complete => return None,
            None => Record::decode(key, &self.database.folded_result(key).ok()??)?,
        };
        self.is_there(&record).then_some(record)
    }

    fn is_there(&self, record: &Record) -> bool {
        match record.place {
            Place::File => {
                let path = blob_path(&self.layout.blobs_dir(), record.digest);
                fs::metadata(path).is_ok_and(|metadata| metadata.len() == record.len)
            }
            Place::Inline(_) | Place::Row(_) => !self.distrusted.borrow().contains(&record.digest),
        }
    }

    /// The value of a result, checked.
    ///
    /// # Errors
    /// When it is not there or damaged; then it counts as missing from now on.
    pub fn read(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        let bytes = match &record.place {
            Place::Inline(bytes) => return Ok(bytes.clone()),
            Place::Row(row) => {
                let bytes = self.database.blob(*row);
                bytes
                    .map_err(|error| self.layout.database_error(OpenError::Sqlite(error)))?
                    .unwrap_or_default()
            }
            Place::File => {
                let path = blob_path(&self.layout.blobs_dir(), record.digest);
                fs::read(&path)
                    .map_err(|error| StoreError::Io(format!("read blob {}", path.display()), error))?
            }
        };
        if Digest::of(&bytes) != record.digest {
            self.distrusted.borrow_mut().insert(record.digest);
            let place = match record.place {
                Place::Row(row) => format!("row {row} of its database"),
                _ => blob_path(&self.layout.blobs_dir(), record.digest).display().to_string(),
            };
            return Err(StoreError::Damaged(format!(
                "{place} is damaged: its bytes do not match the digest {}",
                record.digest
            )));
        }
        Ok(bytes)
    }
}
