//! Reading from a store. Whatever is read is checked; what does not fit its check or its digest is never
//! handed out.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::Arc;

use forkyard_shared::blob;
use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::private;

use super::backend::{Backend, Nothing};
use super::dir::StoreDir;
use super::error::StoreError;
use super::format::Layout;
use super::index::Index;
use super::record::{Place, Record};

/// Looks results up and reads values.
pub(crate) struct Reader {
    dir: StoreDir,
    layout: Layout,
    pub(super) backend: Box<dyn Backend>,
    /// Values whose bytes were found damaged: their nodes run anew.
    distrusted: RefCell<HashSet<Digest>>,
    /// Whether all that is read is of one moment.
    holding: Cell<bool>,
}

/// A result is damaged, or its value is not where it should be.
pub(crate) struct Lost;

/// What is known of the stored result of a key that was looked up with many others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum AtHand {
    /// It was not looked up.
    #[default]
    Unknown,
    /// There is more to it: it is to be looked up once more.
    Ask,
    Absent,
    /// It is `null`, the commonest result, and nothing more.
    Null,
}

impl AtHand {
    /// That of this number.
    pub fn of(number: u8) -> AtHand {
        let all = [AtHand::Unknown, AtHand::Ask, AtHand::Absent, AtHand::Null];
        all.into_iter().find(|at_hand| *at_hand as u8 == number).unwrap_or_default()
    }
}

/// All that is stored, if it has been learnt.
#[derive(Clone)]
pub(crate) struct Learnt(Option<Arc<Index>>);

impl Learnt {
    /// Nothing was.
    pub fn nothing() -> Learnt {
        Learnt(None)
    }

    /// Looks at what is found under these keys: finding it then need not wait for memory, one by one.
    pub fn fetch(&self, keys: impl Iterator<Item = Digest>) {
        if let Some(index) = &self.0 {
            index.fetch(keys);
        }
    }

    /// What is known of the result of a key.
    pub fn find(&self, key: Digest) -> AtHand {
        // What is not learnt is asked for when somebody needs it.
        let Some(index) = &self.0 else { return AtHand::Ask };
        match index.get(key).map(|bytes| Record::decode(key, bytes)) {
            None => AtHand::Absent,
            Some(Some(record)) if record.is_null() => AtHand::Null,
            Some(_) => AtHand::Ask,
        }
    }
}

/// A store is learnt whole if it holds at most so many results for each key that will be looked up.
const LEARN_PER_LOOK_UP: u64 = 8;

impl Reader {
    /// For a run, which will look up some `expected` keys: learns the store in one pass where that is cheaper than
    /// asking for each. An `early` look at it will do if nothing has changed since.
    pub fn for_run(
        dir: &StoreDir,
        layout: Layout,
        expected: usize,
        early: Option<Reader>,
    ) -> Result<Reader, StoreError> {
        let mut reader = match early {
            Some(early) => early,
            None => Reader::open(dir, layout)?,
        };
        reader.expect(expected)?;
        Ok(reader)
    }

    /// So many keys will be looked up: learns the store whole if that is cheaper than asking for each.
    pub fn expect(&mut self, keys: usize) -> Result<(), StoreError> {
        self.backend.learn(LEARN_PER_LOOK_UP * (keys as u64 + 100))
    }

    /// For somebody who only looks, perhaps while a run goes on: learns the store if it has at most `most` results.
    pub fn look(dir: &StoreDir, most: u64) -> Result<Reader, StoreError> {
        let mut reader = Reader::open(dir, dir.layout()?)?;
        reader.backend.learn(most)?;
        Ok(reader)
    }

    /// For a store that is not there yet.
    pub fn of_nothing(dir: &StoreDir, layout: Layout) -> Reader {
        let dir = dir.clone();
        let backend = Box::new(Nothing);
        Reader { dir, layout, backend, distrusted: RefCell::default(), holding: Cell::default() }
    }

    fn open(dir: &StoreDir, layout: Layout) -> Result<Reader, StoreError> {
        Ok(Reader {
            dir: dir.clone(),
            layout,
            backend: dir.open(layout)?,
            distrusted: RefCell::default(),
            holding: Cell::default(),
        })
    }

    /// Calls `work`, which reads a lot, on one moment of the store.
    pub fn at_one_moment<T>(&self, work: impl FnOnce() -> T) -> T {
        let inside = self.holding.replace(true);
        self.backend.hold_moment(true);
        let done = work();
        if !inside {
            self.holding.set(false);
            self.backend.hold_moment(false);
        }
        done
    }

    /// The stored result of a key.
    ///
    /// # Errors
    /// When there is one, but it is damaged or its value is gone.
    pub fn find(&self, key: Digest) -> Result<Option<Record>, Lost> {
        match self.backend.lookup(key) {
            None => Ok(None),
            Some(Ok(record)) if self.is_there(&record) => Ok(Some(record)),
            Some(_) => Err(Lost),
        }
    }

    /// The stored result of a key; one that is lost is none.
    pub fn lookup(&self, key: Digest) -> Option<Record> {
        self.find(key).ok().flatten()
    }

    /// What any thread may look up.
    pub fn at_hand(&self) -> Learnt {
        Learnt(self.backend.learnt())
    }

    fn is_there(&self, record: &Record) -> bool {
        match record.place {
            Place::Inline(_) => true,
            Place::Row(_) => !self.distrusted.borrow().contains(&record.digest),
            Place::File => blob::is_there(&self.dir.blobs_dir(), record.digest, record.len),
        }
    }

    /// The value of a result, checked.
    ///
    /// # Errors
    /// When it is not there or damaged; then it counts as missing from now on.
    pub fn read(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        match &record.place {
            Place::Inline(bytes) => Ok(bytes.clone()),
            Place::File => Ok(blob::read(&self.dir.blobs_dir(), record.digest)?),
            Place::Row(first) => {
                let mut bytes = Vec::new();
                let read = self.backend.copy_rows(*first, record.len, &mut bytes);
                self.trust(*first, record, read.map(|()| Digest::of(&bytes)))?;
                Ok(bytes)
            }
        }
    }

    /// Checks the value of a result, without keeping any of it.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn check(&self, record: &Record) -> Result<(), StoreError> {
        match &record.place {
            Place::Inline(_) => Ok(()),
            Place::File => Ok(blob::check(&self.dir.blobs_dir(), record.digest)?),
            Place::Row(first) => {
                let mut hasher = Hasher::new();
                let read = self.backend.copy_rows(*first, record.len, &mut hasher);
                self.trust(*first, record, read.map(|()| hasher.finish()))
            }
        }
    }

    /// Writes the value of a result, after having checked it; a large one is read twice, and held in memory never.
    ///
    /// # Errors
    /// As [`Reader::read`], and when `out` does not take it.
    pub fn write_to(&self, record: &Record, out: &mut impl Write) -> Result<(), StoreError> {
        match &record.place {
            Place::Inline(bytes) => out.write_all(bytes).map_err(StoreError::Output),
            Place::File => Ok(blob::write_to(&self.dir.blobs_dir(), record.digest, out)?),
            // One moment: what is freed in between may be given to another value.
            Place::Row(first) => self.at_one_moment(|| {
                self.check(record)?;
                self.backend.copy_rows(*first, record.len, out)
            }),
        }
    }

    /// Makes a large value readable for workers, where the layout does not keep it in a file.
    ///
    /// # Errors
    /// As [`Reader::write_to`].
    pub fn lend(&self, record: &Record) -> Result<(), StoreError> {
        let Place::Row(_) = record.place else { return Ok(()) };
        let blobs = self.dir.worker_blobs_dir(self.layout);
        if blob::is_there(&blobs, record.digest, record.len) {
            return Ok(());
        }
        let temporary = self.dir.tmp_dir().join(format!("lent-{}", record.digest));
        let io = |error: io::Error| StoreError::Io(format!("write {}", temporary.display()), error);
        let mut file = private::create(&temporary).map_err(io)?;
        self.write_to(record, &mut file)?;
        blob::adopt(&blobs, &temporary, record.digest, false).map_err(io)
    }

    /// What was read of a value is good only if it has its digest.
    fn trust(&self, first: i64, record: &Record, read: Result<Digest, StoreError>) -> Result<(), StoreError> {
        let path = self.dir.database_path();
        let read = match read {
            Ok(digest) if digest == record.digest => return Ok(()),
            Ok(_) => StoreError::Damaged(format!(
                "row {first} of {} is damaged: its bytes do not match the digest {}",
                path.display(),
                record.digest
            )),
            Err(error) => error,
        };
        self.distrusted.borrow_mut().insert(record.digest);
        Err(read)
    }
}
