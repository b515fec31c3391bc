//! `store.db`. Results are appended to `log`, which has no keyed index, because a big random B-tree
//! takes a tenth of the rows a second; from time to time the log is folded into `results` in key order.
//! Small blobs never move: only their index is made by folding.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use forkyard_shared::digest::Digest;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

/// The format of the store. A newer one is refused by name.
const VERSION: i64 = 1;

/// "Fork" in ASCII: what `file` says of the database.
const APPLICATION_ID: i64 = 0x466f_726b;

const SCHEMA: &str = "
    CREATE TABLE log (seq INTEGER PRIMARY KEY, key BLOB NOT NULL, record BLOB NOT NULL);
    CREATE TABLE results (key BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE blobs (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, bytes BLOB NOT NULL);
    CREATE TABLE blob_index (digest BLOB PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE folded (blobs INTEGER NOT NULL, results INTEGER NOT NULL);
    INSERT INTO folded VALUES (0, 0);
";

/// A connection to a store's database.
pub(super) struct Database(Connection);

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum OpenError {
    Sqlite(rusqlite::Error),
    /// Made by a later version of Forkyard.
    Newer(i64),
    /// There is none yet.
    Missing,
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> OpenError {
        OpenError::Sqlite(error)
    }
}

impl Database {
    /// For the holder of the store's lock: makes the database if there is none.
    pub fn create(path: &Path) -> Result<Database, OpenError> {
        let connection = Connection::open(path)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        if version == 0 {
            let set_up = format!(
                "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
            );
            connection.execute_batch(&set_up)?;
        }
        Database::open(connection)
    }

    /// For readers, while a run may be going on.
    pub fn read(path: &Path) -> Result<Database, OpenError> {
        if path.try_exists().is_ok_and(|exists| !exists) {
            return Err(OpenError::Missing);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Database::open(Connection::open_with_flags(path, flags)?)
    }

    fn open(connection: Connection) -> Result<Database, OpenError> {
        match connection.pragma_query_value(None, "user_version", |row| row.get(0))? {
            0 => return Err(OpenError::Missing),
            VERSION => {}
            newer => return Err(OpenError::Newer(newer)),
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
        // Exit does not wait: the next opening finds the write-ahead log.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.busy_timeout(Duration::from_secs(10))?;
        Ok(Database(connection))
    }

    /// Hands every unfolded result to `each`, oldest first.
    pub fn unfolded(&self, mut each: impl FnMut(Digest, &[u8])) -> rusqlite::Result<()> {
        self.scan("SELECT key, record FROM log ORDER BY seq", &mut each)
    }

    /// Hands every folded result to `each`.
    pub fn folded(&self, mut each: impl FnMut(Digest, &[u8])) -> rusqlite::Result<()> {
        self.scan("SELECT key, record FROM results", &mut each)
    }

    fn scan(&self, query: &str, each: &mut dyn FnMut(Digest, &[u8])) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (key, record) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            if let Ok(key) = key.try_into() {
                each(Digest(key), record);
            }
        }
        Ok(())
    }

    /// The folded result of a key.
    pub fn folded_result(&self, key: Digest) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut statement = self.0.prepare_cached("SELECT record FROM results WHERE key = ?1")?;
        statement.query_row([key.0], |row| row.get(0)).optional()
    }

    /// At most how many results are folded: one that replaced another counts twice.
    pub fn folded_count(&self) -> rusqlite::Result<u64> {
        self.0.query_row("SELECT results FROM folded", [], |row| row.get::<_, i64>(0)).map(|n| n as u64)
    }

    /// How many are not, at the most. Does not count them.
    pub fn unfolded_count(&self) -> rusqlite::Result<u64> {
        let span = "SELECT coalesce(1 + (SELECT max(seq) FROM log) - (SELECT min(seq) FROM log), 0)";
        self.0.query_row(span, [], |row| row.get::<_, i64>(0)).map(|n| n as u64)
    }

    /// The bytes of a small blob.
    pub fn blob(&self, id: i64) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut statement = self.0.prepare_cached("SELECT bytes FROM blobs WHERE id = ?1")?;
        statement.query_row([id], |row| row.get(0)).optional()
    }

    /// Digests and rows of the small blobs that are not in the index yet.
    pub fn unindexed_blobs(&self, mut each: impl FnMut(Digest, i64)) -> rusqlite::Result<()> {
        let mut statement =
            self.0.prepare("SELECT digest, id FROM blobs WHERE id > (SELECT blobs FROM folded)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(Digest(row.get(0)?), row.get(1)?);
        }
        Ok(())
    }

    /// The row of a small blob that is in the index.
    pub fn indexed_blob(&self, digest: Digest) -> rusqlite::Result<Option<i64>> {
        let mut statement = self.0.prepare_cached("SELECT id FROM blob_index WHERE digest = ?1")?;
        statement.query_row([digest.0], |row| row.get(0)).optional()
    }

    /// Two numbers of which one grows with every change of the results.
    pub fn state(&self) -> rusqlite::Result<(i64, i64)> {
        let state = "SELECT (SELECT results FROM folded), (SELECT coalesce(max(seq), 0) FROM log)";
        self.0.query_row(state, [], |row| Ok((row.get(0)?, row.get(1)?)))
    }

    /// All that is read until [`Database::rollback`] is of one moment.
    pub fn begin_reading(&self) -> rusqlite::Result<()> {
        self.0.execute_batch("BEGIN")
    }

    pub fn begin(&self) -> rusqlite::Result<()> {
        self.0.execute_batch("BEGIN IMMEDIATE")
    }

    /// When this returns, everything since [`Database::begin`] is on the disk.
    pub fn commit(&self) -> rusqlite::Result<()> {
        self.0.execute_batch("COMMIT")
    }

    /// Forgets everything since [`Database::begin`].
    pub fn rollback(&self) {
        if !self.0.is_autocommit() {
            self.0.execute_batch("ROLLBACK").ok();
        }
    }

    pub fn append_result(&self, key: Digest, record: &[u8]) -> rusqlite::Result<()> {
        self.0
            .prepare_cached("INSERT INTO log (key, record) VALUES (?1, ?2)")?
            .execute(params![key.0, record])?;
        Ok(())
    }

    /// The row that the blob got.
    pub fn append_blob(&self, digest: Digest, bytes: &[u8]) -> rusqlite::Result<i64> {
        self.0
            .prepare_cached("INSERT INTO blobs (digest, bytes) VALUES (?1, ?2)")?
            .execute(params![digest.0, bytes])?;
        Ok(self.0.last_insert_rowid())
    }

    /// Folds up to `rows` results and as many blobs, unless `stop` is set meanwhile. Idempotent, all or
    /// nothing: whoever is killed in it leaves the log as it was.
    pub fn fold(&mut self, rows: usize, stop: Arc<AtomicBool>) -> rusqlite::Result<()> {
        // Only while it folds: a commit must never be stopped.
        self.0.progress_handler(1000, Some(move || stop.load(Relaxed)))?;
        let result = self.fold_now(rows);
        self.0.progress_handler(0, None::<fn() -> bool>)?;
        if result.is_err() {
            self.rollback();
        }
        result
    }

    fn fold_now(&self, rows: usize) -> rusqlite::Result<()> {
        self.begin()?;
        let upto: Option<i64> = self.0.query_row(
            "SELECT max(seq) FROM (SELECT seq FROM log ORDER BY seq LIMIT ?1)",
            [rows as i64],
            |row| row.get(0),
        )?;
        if let Some(upto) = upto {
            let new = "INSERT INTO results SELECT key, record FROM (SELECT key, record, max(seq) FROM log WHERE seq <= ?1 GROUP BY key)
                       ORDER BY key ON CONFLICT (key) DO UPDATE SET record = excluded.record";
            let touched = self.0.execute(new, [upto])? as i64;
            self.0.execute("DELETE FROM log WHERE seq <= ?1", [upto])?;
            self.0.execute("UPDATE folded SET results = results + ?1", [touched])?;
        }
        self.0.execute(
            "INSERT OR IGNORE INTO blob_index SELECT digest, min(id) FROM blobs
             WHERE id > (SELECT blobs FROM folded) AND id <= (SELECT blobs FROM folded) + ?1 GROUP BY digest ORDER BY digest",
            [rows as i64],
        )?;
        self.0.execute(
            "UPDATE folded SET blobs = min(blobs + ?1, (SELECT coalesce(max(id), 0) FROM blobs))",
            [rows as i64],
        )?;
        self.commit()
    }
}
