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
    /// Small blobs whose bytes were found damaged: their nodes run anew.
    distrusted: RefCell<HashSet<Digest>>,
}

impl Reader {
    /// For a run, which holds the lock, and that will look up some `expected` keys: learns them in one pass where that is cheaper
    /// than asking for each.
    pub fn for_run(layout: &Layout, expected: usize) -> Result<Reader, StoreError> {
        drop(layout.create_database()?);
        let mut reader = Reader::open(layout)?;
        reader.learn(expected).map_err(|error| layout.database_error(OpenError::Sqlite(error)))?;
        Ok(reader)
    }

    /// For somebody who only looks, perhaps while a run goes on.
    pub fn look(layout: &Layout) -> Result<Reader, StoreError> {
        let mut reader = Reader::open(layout)?;
        reader.learn(0).map_err(|error| layout.database_error(OpenError::Sqlite(error)))?;
        Ok(reader)
    }

    fn open(layout: &Layout) -> Result<Reader, StoreError> {
        let database = layout.read_database()?;
        let (index, distrusted) = (Index::default(), RefCell::default());
        Ok(Reader { layout: layout.clone(), database, index, complete: false, distrusted })
    }

    fn learn(&mut self, expected: usize) -> rusqlite::Result<()> {
        self.complete = self.database.folded_count()? <= 8 * expected as u64 + 1000;
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
