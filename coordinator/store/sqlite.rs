//! The layouts with a database, `store.db`. Results are appended to `log`, many in a row and without an index,
//! because a big random B-tree takes a tenth of them a second; from time to time the log is folded into `results`
//! in key order. Values never move: only their index is made by folding.
//!
//! A tiny value stands in the row of its result, a larger one in rows of `blobs`: one, or several in a row for
//! each [`CHUNK_BYTES`]. Where large values are files, they are named by digest.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use forkyard_shared::blob::blob_path;
use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::pack;
use forkyard_shared::private;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::backend::{Backend, Found, NewResult, NewValue};
use super::dir::StoreDir;
use super::error::StoreError;
use super::format::Layout;
use super::index::Index;
use super::packed;
use super::record::{Place, Record};
use crate::room;

/// "Fork" in ASCII: what `file` says of the database.
const APPLICATION_ID: i64 = 0x466f_726b;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, packed BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS blobs (id INTEGER PRIMARY KEY, digest BLOB, packed INTEGER NOT NULL, bytes BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS blob_index (digest BLOB PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS folded (blobs INTEGER NOT NULL, results INTEGER NOT NULL);
    INSERT INTO folded SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM folded);
";

/// Values up to this size stand in the row of their result.
const TINY_MAX_BYTES: usize = 256;

/// The most that one row holds of a value: what is in memory while a large one is copied.
const CHUNK_BYTES: usize = 1 << 20;

/// A row of the log is full when it has so many bytes: no more is lost if one is damaged.
const LOG_ROW_BYTES: usize = 64 << 10;

/// Bytes of the log folded in one transaction, which is given up when there is something to commit.
const FOLD_BYTES: u64 = 32 << 20;

/// A log longer than this is folded at once.
const FOLD_EARLY_BYTES: u64 = 24 << 20;

/// Pages that a writer keeps, as SQLite counts them: the way to the end of each table.
const WRITER_CACHE_KIB: i64 = -1024;

/// Results folded between two looks at whether there is something to commit.
const FOLD_STEP: usize = 1000;

/// The database of one store.
pub(super) struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// Where values that come as files are.
    files: PathBuf,
    /// Whether those files are the blobs, and not copies of rows.
    large_in_files: bool,
    /// What was learnt.
    index: Arc<Index>,
    /// Whether that is everything.
    complete: bool,
    /// What the database was like then.
    seen: Option<(i64, i64)>,
    /// A fold that has begun.
    folding: Option<Fold>,
    /// Values of earlier runs that are not in the database's index yet; known when the first one is written.
    unindexed: Option<HashMap<Digest, i64>>,
    /// Values that this run has written or compared lately.
    own: Recent,
    /// Whether it is this connection that writes results.
    writes: bool,
}

/// Where values are that were written lately, in bounded memory: the newest, and those before them. An equal value that
/// comes later than that is stored again, which costs room on the disk and nothing else.
#[derive(Default)]
struct Recent {
    new: HashMap<Digest, i64>,
    old: HashMap<Digest, i64>,
}

/// Values in each half of [`Recent`].
const RECENT_MAX: usize = 28_000;

impl Recent {
    fn get(&mut self, digest: Digest) -> Option<i64> {
        let row = self.new.get(&digest).copied();
        row.or_else(|| self.old.remove(&digest).inspect(|row| self.put(digest, *row)))
    }

    fn put(&mut self, digest: Digest, row: i64) {
        if self.new.len() >= RECENT_MAX {
            std::mem::swap(&mut self.new, &mut self.old);
            self.new.clear();
        }
        if self.new.capacity() == 0 {
            let nobody = |n: usize| Digest::of(&n.to_le_bytes());
            room::take_map(&mut self.new, RECENT_MAX, nobody, || 0);
            room::take_map(&mut self.old, RECENT_MAX, nobody, || 0);
        }
        self.new.insert(digest, row);
    }

    fn clear(&mut self) {
        self.new.clear();
        self.old.clear();
    }
}

/// How far a fold is. Forgotten, it starts anew: what is folded twice is the same.
struct Fold {
    /// The last row of the log that it covers.
    upto: i64,
    /// Into so many ranges of keys.
    slices: u64,
    next: u64,
}

impl Sqlite {
    pub fn open(dir: &StoreDir, layout: Layout) -> Result<Sqlite, StoreError> {
        let path = dir.database_path();
        let connection = connect(&path).map_err(|error| StoreError::Database(path.clone(), error))?;
        Ok(Sqlite {
            connection,
            path,
            files: dir.worker_blobs_dir(layout),
            large_in_files: layout == Layout::Hybrid,
            index: Arc::default(),
            complete: false,
            seen: None,
            folding: None,
            unindexed: None,
            own: Recent::default(),
            writes: false,
        })
    }

    fn error(&self, error: rusqlite::Error) -> StoreError {
        StoreError::Database(self.path.clone(), error)
    }

    /// At most how many results are folded: one that replaced another counts twice.
    fn folded_count(&self) -> rusqlite::Result<u64> {
        self.number("SELECT results FROM folded").map(|n| n as u64)
    }

    /// How long the log is.
    fn log_bytes(&self) -> rusqlite::Result<u64> {
        self.number("SELECT coalesce(sum(length(packed)), 0) FROM log").map(|n| n as u64)
    }

    /// Hands out the rows of the log up to one, oldest first.
    fn scan_log(&self, upto: i64, each: &mut dyn FnMut(&[u8])) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT packed FROM log WHERE seq <= ?1 ORDER BY seq")?;
        let mut rows = statement.query([upto])?;
        while let Some(row) = rows.next()? {
            each(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }

    fn number(&self, query: &str) -> rusqlite::Result<i64> {
        self.connection.query_row(query, [], |row| row.get(0))
    }

    /// Two numbers of which one grows with every change of the results.
    fn state(&self) -> rusqlite::Result<(i64, i64)> {
        let state = "SELECT (SELECT results FROM folded), (SELECT coalesce(max(seq), 0) FROM log)";
        self.connection.query_row(state, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// Calls `work` on one moment of the database: a fold must not move results from the table that is read last
    /// to the one read first.
    fn at_one_moment<T>(&self, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        if !self.connection.is_autocommit() {
            return work();
        }
        self.connection.execute_batch("BEGIN")?;
        let done = work();
        self.rollback();
        done
    }

    /// What `work` changes is on the disk when this returns, or nothing of it.
    fn at_once<T>(
        &mut self,
        work: impl FnOnce(&mut Sqlite) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| self.error(error))?;
        let done = work(self).and_then(|done| {
            self.connection.execute_batch("COMMIT").map_err(|error| self.error(error))?;
            Ok(done)
        });
        if done.is_err() {
            self.rollback();
        }
        done
    }

    /// A group of results is not written before it is complete. Nobody reads again what it has written: those pages are
    /// not kept.
    fn hold_pages(&mut self, hold: bool) -> rusqlite::Result<()> {
        if !std::mem::replace(&mut self.writes, true) {
            self.connection.pragma_update(None, "cache_size", WRITER_CACHE_KIB)?;
        }
        self.connection.pragma_update(None, "cache_spill", !hold)
    }

    fn rollback(&self) {
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").ok();
        }
    }

    fn scan_results(&self, each: &mut dyn FnMut(Digest, &[u8])) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare("SELECT key, record FROM results")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (key, record) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            if let Ok(key) = key.try_into() {
                each(Digest(key), record);
            }
        }
        Ok(())
    }

    fn learn_now(&self, most: u64, index: &mut Index) -> rusqlite::Result<bool> {
        let complete = self.folded_count()? <= most;
        if complete {
            self.scan_results(&mut |key, record| index.put(key, record))?;
        }
        self.scan_log(i64::MAX, &mut |row| {
            packed::each(row, |key, record| index.put(key, record));
        })?;
        Ok(complete)
    }

    fn place(&mut self, result: &NewResult) -> Result<Place, StoreError> {
        match &result.value {
            NewValue::File { .. } if self.large_in_files => Ok(Place::File),
            NewValue::Bytes(bytes) if bytes.len() <= TINY_MAX_BYTES => Ok(Place::Inline(bytes.clone())),
            value => self.row(result.digest, value).map(Place::Row),
        }
    }

    /// The first row of a value: equal ones are stored once.
    fn row(&mut self, digest: Digest, value: &NewValue) -> Result<i64, StoreError> {
        if let Some(row) = self.own.get(digest) {
            return Ok(row);
        }
        let known = self.known_row(digest).map_err(|error| self.error(error))?;
        let row = match known {
            // A row whose bytes went bad must not be trusted for its digest.
            Some(row) if self.holds(row, digest, value) => row,
            _ => self.append_value(digest, value)?,
        };
        self.own.put(digest, row);
        Ok(row)
    }

    fn unindexed_rows(&self) -> rusqlite::Result<HashMap<Digest, i64>> {
        let query =
            "SELECT digest, id FROM blobs WHERE id > (SELECT blobs FROM folded) AND digest IS NOT NULL";
        let mut statement = self.connection.prepare(query)?;
        let rows = statement.query_map([], |row| Ok((Digest(row.get(0)?), row.get(1)?)))?;
        rows.collect()
    }

    fn known_row(&mut self, digest: Digest) -> rusqlite::Result<Option<i64>> {
        if self.unindexed.is_none() {
            self.unindexed = Some(self.unindexed_rows()?);
        }
        if let Some(row) = self.unindexed.as_ref().and_then(|rows| rows.get(&digest)) {
            return Ok(Some(*row));
        }
        let mut statement = self.connection.prepare_cached("SELECT id FROM blob_index WHERE digest = ?1")?;
        statement.query_row([digest.0], |row| row.get(0)).optional()
    }

    fn holds(&self, row: i64, digest: Digest, value: &NewValue) -> bool {
        let len = match value {
            NewValue::Bytes(bytes) => bytes.len() as u64,
            NewValue::File { len } => *len,
        };
        let mut hasher = Hasher::new();
        self.copy_rows(row, len, &mut hasher).is_ok() && hasher.finish() == digest
    }

    fn append_value(&self, digest: Digest, value: &NewValue) -> Result<i64, StoreError> {
        let append = |digest: Option<Digest>, bytes: &[u8]| {
            let packed = pack::pack(bytes);
            let insert = "INSERT INTO blobs (digest, packed, bytes) VALUES (?1, ?2, ?3)";
            let mut insert = self.connection.prepare_cached(insert)?;
            let digest = digest.map(|digest| digest.0);
            insert.execute(params![digest, packed.is_some(), packed.as_deref().unwrap_or(bytes)])?;
            Ok(self.connection.last_insert_rowid())
        };
        let append = |digest, bytes: &[u8]| append(digest, bytes).map_err(|error| self.error(error));
        match value {
            NewValue::Bytes(bytes) => append(Some(digest), bytes),
            NewValue::File { len } => {
                let path = blob_path(&self.files, digest);
                let unreadable = |error| StoreError::Io(format!("read {}", path.display()), error);
                let mut file = File::open(&path).map_err(unreadable)?;
                let mut chunk = vec![0; CHUNK_BYTES.min(*len as usize)];
                let (mut first, mut left) = (None, *len);
                while left > 0 || first.is_none() {
                    let part = &mut chunk[..left.min(CHUNK_BYTES as u64) as usize];
                    file.read_exact(part).map_err(unreadable)?;
                    // Rows of one transaction have numbers that follow each other: nobody else writes.
                    let row = append(first.is_none().then_some(digest), part)?;
                    first.get_or_insert(row);
                    left -= part.len() as u64;
                }
                Ok(first.expect("there is at least one row"))
            }
        }
    }

    fn append(&self, results: &[NewResult], records: &[Record]) -> rusqlite::Result<()> {
        let mut insert = self.connection.prepare_cached("INSERT INTO log (packed) VALUES (?1)")?;
        let mut row = Vec::new();
        for (index, (result, record)) in results.iter().zip(records).enumerate() {
            packed::push(&mut row, result.key, &record.encode(result.key));
            if row.len() >= LOG_ROW_BYTES || index + 1 == results.len() {
                insert.execute([&row])?;
                row.clear();
            }
        }
        Ok(())
    }

    /// The next slice of a fold. All of the log is folded from one range of keys to the next, so that each page of
    /// the tree is written once, and then removed: until then it says the same as the results, and comes first.
    fn fold_slice(&mut self, stop: &AtomicBool) -> rusqlite::Result<()> {
        let mut fold = match self.folding.take() {
            Some(fold) => fold,
            None => {
                let slices = self.log_bytes()?.div_ceil(FOLD_BYTES).clamp(1, 256);
                Fold { upto: self.number("SELECT coalesce(max(seq), 0) FROM log")?, slices, next: 0 }
            }
        };
        let bound = |slice: u64| slice * 256 / fold.slices;
        let range = bound(fold.next)..bound(fold.next + 1);
        let (mut packed, mut places) = (Vec::new(), Vec::new());
        self.scan_log(fold.upto, &mut |row| {
            packed::each(row, |key, record| {
                if range.contains(&u64::from(key.0[0])) {
                    places.push((key, packed.len()));
                    packed::push(&mut packed, key, record);
                }
            });
        })?;
        places.sort_unstable();
        let upsert = "INSERT INTO results (key, record) VALUES (?1, ?2)
                      ON CONFLICT (key) DO UPDATE SET record = excluded.record";
        let mut upsert = self.connection.prepare_cached(upsert)?;
        let mut touched = 0;
        for (index, (key, place)) in places.iter().enumerate() {
            if index.is_multiple_of(FOLD_STEP) && stop.load(Relaxed) {
                let interrupted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
                return Err(rusqlite::Error::SqliteFailure(interrupted, None));
            }
            // Of several of one key the last one counts.
            if places.get(index + 1).is_none_or(|(next, _)| next != key) {
                let (_, record, _) = packed::next(&packed[*place..]).expect("it was packed here");
                touched += upsert.execute(params![key.0, record])? as i64;
            }
        }
        drop(upsert);
        self.connection.execute("UPDATE folded SET results = results + ?1", [touched])?;
        fold.next += 1;
        if fold.next < fold.slices {
            self.folding = Some(fold);
            return Ok(());
        }
        self.connection.execute("DELETE FROM log WHERE seq <= ?1", [fold.upto])?;
        index_blobs(&self.connection)?;
        // The index knows them now.
        self.unindexed = None;
        self.own.clear();
        Ok(())
    }

    fn remove_rows(&self, live: &HashSet<i64>) -> rusqlite::Result<()> {
        let mut dead = Vec::new();
        let mut statement = self.connection.prepare("SELECT id FROM blobs")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if !live.contains(&id) {
                dead.push(id);
            }
        }
        let mut delete = self.connection.prepare("DELETE FROM blobs WHERE id = ?1")?;
        dead.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
        self.connection.execute("DELETE FROM blob_index WHERE id NOT IN (SELECT id FROM blobs)", [])?;
        // Numbers that are free now are given again, to values that are not in the index.
        self.connection
            .execute("UPDATE folded SET blobs = min(blobs, (SELECT coalesce(max(id), 0) FROM blobs))", [])?;
        Ok(())
    }
}

impl Backend for Sqlite {
    fn commit(&mut self, results: &[NewResult], run: u64) -> Result<Vec<Record>, StoreError> {
        if self.large_in_files {
            sync_dirs(&self.files, results)?;
        }
        self.hold_pages(true).map_err(|error| self.error(error))?;
        let committed = self.at_once(|database| {
            let mut records = Vec::with_capacity(results.len());
            for result in results {
                let place = database.place(result)?;
                records.push(result.record(place, run));
            }
            database.append(results, &records).map_err(|error| database.error(error))?;
            Ok(records)
        });
        self.hold_pages(false).map_err(|error| self.error(error))?;
        if committed.is_err() {
            // Rows that are rolled back must not be referred to.
            self.own.clear();
        }
        committed
    }

    fn fold(&mut self, stop: &AtomicBool) -> Result<bool, StoreError> {
        let folded = self.at_once(|database| {
            let slice = database.fold_slice(stop);
            slice.map_err(|error| database.error(error))
        });
        if folded.is_err() {
            self.folding = None;
        }
        folded?;
        self.number("SELECT EXISTS (SELECT 1 FROM log)")
            .map(|left| left != 0)
            .map_err(|error| self.error(error))
    }

    fn fold_is_due(&self) -> bool {
        self.log_bytes().is_ok_and(|bytes| bytes > FOLD_EARLY_BYTES)
    }

    fn learn(&mut self, most: u64) -> Result<(), StoreError> {
        let learn = || {
            let state = self.state()?;
            if self.seen == Some(state) && (self.complete || self.folded_count()? > most) {
                return Ok(None);
            }
            let mut index = Index::default();
            let complete = self.learn_now(most, &mut index)?;
            Ok(Some((state, index, complete)))
        };
        if let Some((state, index, complete)) =
            self.at_one_moment(learn).map_err(|error| self.error(error))?
        {
            (self.seen, self.index, self.complete) = (Some(state), Arc::new(index), complete);
        }
        Ok(())
    }

    fn learnt(&self) -> Option<Arc<Index>> {
        self.complete.then(|| self.index.clone())
    }

    fn lookup(&self, key: Digest) -> Option<Found> {
        let decode = |bytes: &[u8]| Record::decode(key, bytes).ok_or_else(|| bytes.to_vec());
        match self.index.get(key) {
            Some(bytes) => Some(decode(bytes)),
            None if self.complete => None,
            None => {
                let query = "SELECT record FROM results WHERE key = ?1";
                let mut statement = self.connection.prepare_cached(query).ok()?;
                let found: rusqlite::Result<Vec<u8>> = statement.query_row([key.0], |row| row.get(0));
                found.ok().map(|bytes| decode(&bytes))
            }
        }
    }

    fn each(&self, each: &mut dyn FnMut(Digest, Found)) -> Result<(), StoreError> {
        let mut decode =
            |key, bytes: &[u8]| each(key, Record::decode(key, bytes).ok_or_else(|| bytes.to_vec()));
        let scan = || {
            self.scan_results(&mut decode)?;
            self.scan_log(i64::MAX, &mut |row| {
                let left = packed::each(row, &mut decode);
                if !left.is_empty() {
                    // Results that nobody can tell apart any more.
                    decode(Digest::of(left), left);
                }
            })
        };
        self.at_one_moment(scan).map_err(|error| self.error(error))
    }

    fn copy_rows(&self, first: i64, len: u64, out: &mut dyn Write) -> Result<(), StoreError> {
        let damaged = || StoreError::Damaged(format!("row {first} of {} is damaged", self.path.display()));
        let (mut row, mut left) = (first, len);
        while left > 0 {
            let part = left.min(CHUNK_BYTES as u64) as usize;
            let query = "SELECT packed, bytes FROM blobs WHERE id = ?1";
            let mut statement = self.connection.prepare_cached(query).map_err(|error| self.error(error))?;
            let mut rows = statement.query([row]).map_err(|error| self.error(error))?;
            let found = rows.next().map_err(|error| self.error(error))?.ok_or_else(damaged)?;
            let packed: bool = found.get(0).map_err(|_| damaged())?;
            let bytes = found.get_ref(1).ok().and_then(|bytes| bytes.as_blob().ok()).ok_or_else(damaged)?;
            let written = if packed {
                let bytes = pack::unpack(bytes, part).map_err(|_| damaged())?;
                out.write_all(&bytes)
            } else {
                out.write_all(bytes)
            };
            written.map_err(StoreError::Output)?;
            left -= part as u64;
            row += 1;
        }
        Ok(())
    }

    fn hold_moment(&self, hold: bool) {
        if hold && self.connection.is_autocommit() {
            // Without it each read is a moment of its own, which takes longer and is as good.
            self.connection.execute_batch("BEGIN").ok();
        } else if !hold {
            self.rollback();
        }
    }

    fn forget(&mut self, keys: &[Digest]) -> Result<(), StoreError> {
        // What is in the log stands among others: first it is folded.
        while self.fold(&AtomicBool::new(false))? {}
        self.at_once(|database| {
            let forget = || {
                let mut delete = database.connection.prepare("DELETE FROM results WHERE key = ?1")?;
                keys.iter().try_for_each(|key| delete.execute([key.0]).map(drop))?;
                // Who has learnt the store must see that it is another one.
                database.connection.execute("UPDATE folded SET results = results + 1", []).map(drop)
            };
            forget().map_err(|error| database.error(error))
        })
    }

    fn sweep(&mut self, live: &[(i64, u64)]) -> Result<bool, StoreError> {
        let live: HashSet<i64> =
            live.iter().flat_map(|(first, len)| *first..first + row_count(*len)).collect();
        self.at_once(|database| database.remove_rows(&live).map_err(|error| database.error(error)))?;
        self.own.clear();
        self.unindexed = None;
        // Free pages stay in the file until it is written anew. A reader may be in the way: then the next gc does it.
        let shrink = || {
            self.connection.busy_timeout(Duration::from_secs(1))?;
            if self.number("PRAGMA freelist_count")? * 4 > self.number("PRAGMA page_count")? {
                self.connection.execute_batch("VACUUM")?;
            }
            Ok(self.number("PRAGMA wal_checkpoint(TRUNCATE)")? == 0)
        };
        shrink().map_err(|error: rusqlite::Error| self.error(error))
    }
}

/// Makes a database.
pub(super) fn create_at(path: &Path) -> Result<(), StoreError> {
    // SQLite gives what it makes beside it the same mode.
    let made = private::options().write(true).create(true).truncate(false).open(path);
    made.map_err(|error| StoreError::Io(format!("make {}", path.display()), error))?;
    let make = || {
        let connection = Connection::open(path)?;
        // Fifteen values of a kilobyte to a page, with little between them.
        connection.pragma_update(None, "page_size", 16_384)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection
            .execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; COMMIT;"))
    };
    make().map_err(|error| StoreError::Database(path.into(), error))
}

/// Opens one that is there.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In pages: a log of 32 MiB, so that what is written in one go is written twice later, and not at once.
    connection.pragma_update(None, "wal_autocheckpoint", 2048)?;
    // After a large value it is cut down again.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // In KiB, for who reads. It is memory only when it is used.
    connection.pragma_update(None, "cache_size", -24_576)?;
    // Exit does not wait: the next opening finds the write-ahead log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

/// Brings the index of values up to date.
pub(super) fn index_blobs(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO blob_index SELECT digest, max(id) FROM blobs
         WHERE id > (SELECT blobs FROM folded) AND digest IS NOT NULL GROUP BY digest ORDER BY digest
         ON CONFLICT (digest) DO UPDATE SET id = excluded.id",
        [],
    )?;
    connection.execute("UPDATE folded SET blobs = (SELECT coalesce(max(id), 0) FROM blobs)", [])?;
    Ok(())
}

/// How many rows a value of this length has.
pub(super) fn row_count(len: u64) -> i64 {
    len.div_ceil(CHUNK_BYTES as u64).max(1) as i64
}

/// Puts the names of large values on the disk. (Their bytes were synced by the worker.)
fn sync_dirs(blobs: &Path, results: &[NewResult]) -> Result<(), StoreError> {
    let files = results.iter().filter(|result| matches!(result.value, NewValue::File { .. }));
    let dirs: HashSet<PathBuf> =
        files.filter_map(|result| blob_path(blobs, result.digest).parent().map(PathBuf::from)).collect();
    let root = (!dirs.is_empty()).then(|| blobs.to_path_buf());
    for dir in dirs.into_iter().chain(root) {
        let synced = File::open(&dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| StoreError::Io(format!("sync {}", dir.display()), error))?;
    }
    Ok(())
}
