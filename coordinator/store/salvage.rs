//! A database that SQLite finds malformed: what can be read of it goes into a new one, which takes its place.
//! Ignorant of what results mean, and of which values match their digest: verify looks at that afterwards.
//!
//! The new one is `store.db.new` until it is complete. Then the old one goes to `quarantine/`, and the new one gets
//! its name: whoever is killed in between leaves a `store.db.new` without a `store.db`, and [`finish`] goes on.
//! A `store.db.new` beside a `store.db` is not complete.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use forkyard_shared::digest::Digest;
use rusqlite::{Connection, Params, Row, params};

use super::census::named_results;
use super::dir::{StoreDir, make_dir};
use super::error::{StoreError, is_malformed};
use super::packed;
use super::record::{Place, Record};
use super::sqlite;

/// How many rows are tried after the last one of the log that can be read: its end is then unknown.
const LOG_ROWS_TRIED: i64 = 1 << 17;

/// Encoded records by key.
type Results = BTreeMap<Digest, Vec<u8>>;

/// Replaces a malformed database; what there is to say of it, and the results that are lost, as far as a journal
/// names them. `None` when the database is sound. The caller holds the store's lock.
pub(super) fn salvage(dir: &StoreDir) -> Result<Option<(String, Vec<Digest>)>, StoreError> {
    let old = dir.database_path();
    let trouble = match check(&old) {
        Ok(said) if said == "ok" => return Ok(None),
        Ok(said) => said,
        Err(error) if is_malformed(&error) => error.to_string(),
        Err(error) => return Err(StoreError::Database(old, error)),
    };
    let new = new_path(dir);
    let saved = save(&old, &new);
    if saved.is_err() {
        // It may be what fills the disk.
        remove(&new).ok();
    }
    let (results, values_lost) = saved?;
    let named = named_results(dir)?.by_key.into_keys();
    let lost: Vec<Digest> = named.filter(|key| !results.contains_key(key)).collect();
    make_dir(&dir.quarantine_dir())?;
    let moved = move_old(dir).and_then(|()| move_new(dir));
    moved.map_err(|error| during(&new, error))?;
    let what = format!(
        "database {} was damaged ({}): {} and {} could not be read; what could is in a new one, the old one is in quarantine",
        old.display(),
        trouble.replace('\n', " "),
        crate::text::plural(lost.len(), "result"),
        crate::text::plural(values_lost, "value"),
    );
    Ok(Some((what, lost)))
}

/// Ends what a killed [`salvage`] has begun. The caller holds the store's lock.
pub(super) fn finish(dir: &StoreDir) -> Result<(), StoreError> {
    let new = new_path(dir);
    if !new.exists() {
        return Ok(());
    }
    let done = if dir.database_path().exists() { remove(&new) } else { move_new(dir) };
    done.map_err(|error| during(&new, error))
}

/// What SQLite says of the database's structure.
fn check(path: &Path) -> rusqlite::Result<String> {
    let connection = sqlite::connect(path)?;
    let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    // A table whose name is damaged is not there.
    connection.prepare("SELECT 1 FROM log, results, blobs, blob_index, folded")?;
    Ok(said)
}

/// Fills a new database; its results, and how many values of others are lost.
fn save(old: &Path, new: &Path) -> Result<(Results, usize), StoreError> {
    remove(new).map_err(|error| during(new, error))?;
    sqlite::create_at(new)?;
    // Nothing can be read of one that cannot be opened.
    let from = sqlite::connect(old).ok();
    let mut results = from.as_ref().map_or_else(Results::new, read_results);
    let fill = |results: &mut Results| {
        let to = Connection::open(new)?;
        // Killed before its end, it is thrown away.
        to.pragma_update(None, "journal_mode", "OFF")?;
        to.pragma_update(None, "synchronous", "OFF")?;
        to.execute_batch("BEGIN")?;
        let lost = from.as_ref().map_or(Ok(0), |from| copy_values(from, &to, results))?;
        let mut insert = to.prepare("INSERT INTO results (key, record) VALUES (?1, ?2)")?;
        for (key, record) in &*results {
            insert.execute(params![key.0, record])?;
        }
        drop(insert);
        to.execute("UPDATE folded SET results = (SELECT count(*) FROM results)", [])?;
        sqlite::index_blobs(&to)?;
        to.execute_batch("COMMIT")?;
        to.pragma_update(None, "journal_mode", "WAL")?;
        to.close().map_err(|(_, error)| error)?;
        Ok(lost)
    };
    let lost = fill(&mut results).map_err(|error| StoreError::Database(new.into(), error))?;
    File::open(new).and_then(|file| file.sync_all()).map_err(|error| during(new, error))?;
    Ok((results, lost))
}

/// All results that can be read, those of the log last.
fn read_results(from: &Connection) -> Results {
    let mut results = Results::new();
    let range = "SELECT key, record FROM results WHERE key >= ?1 AND key < ?2 ORDER BY key";
    for byte in 0..=255u8 {
        // Longer than any key.
        let end = byte.checked_add(1).map_or(vec![255; 33], |next| vec![next]);
        let mut take = |row: &Row| {
            results.insert(Digest(row.get(0)?), row.get(1)?);
            Ok(())
        };
        // From both sides up to the page that is damaged.
        if !read(from, range, params![[byte], end], &mut take) {
            read(from, &format!("{range} DESC"), params![[byte], end], &mut take);
        }
    }
    for row in read_log(from).values() {
        packed::each(row, |key, record| {
            results.insert(key, record.to_vec());
        });
    }
    results
}

/// The rows of the log that can be read, by number.
fn read_log(from: &Connection) -> BTreeMap<i64, Vec<u8>> {
    let mut rows = BTreeMap::new();
    let all = "SELECT seq, packed FROM log ORDER BY seq";
    let mut take = |row: &Row| {
        rows.insert(row.get(0)?, row.get(1)?);
        Ok(())
    };
    // Without such a table nothing of it can be read, row by row or not.
    if read(from, all, [], &mut take) || from.prepare(all).is_err() {
        return rows;
    }
    let first = rows.last_key_value().map_or(0, |(seq, _)| seq + 1);
    let mut after = None;
    read(from, &format!("{all} DESC"), [], &mut |row| {
        let seq = row.get(0)?;
        rows.insert(seq, row.get(1)?);
        after = Some(seq);
        Ok(())
    });
    let end = after.unwrap_or(i64::MAX).min(first.saturating_add(LOG_ROWS_TRIED));
    for seq in first..end {
        read(from, "SELECT packed FROM log WHERE seq = ?1", [seq], &mut |row| {
            rows.insert(seq, row.get(0)?);
            Ok(())
        });
    }
    rows
}

/// Copies the values of results; each keeps its number, because results name it. One that cannot be read takes its
/// results with it. How many there were.
fn copy_values(from: &Connection, to: &Connection, results: &mut Results) -> rusqlite::Result<usize> {
    let place = |key: &Digest, bytes: &[u8]| {
        let record = Record::decode(*key, bytes)?;
        if let Place::Row(first) = record.place { Some((first, record.len)) } else { None }
    };
    let mut whole: BTreeMap<(i64, u64), bool> =
        results.iter().filter_map(|(key, bytes)| Some((place(key, bytes)?, true))).collect();
    let mut insert =
        to.prepare("INSERT OR IGNORE INTO blobs (id, digest, packed, bytes) VALUES (?1, ?2, ?3, ?4)")?;
    for ((first, len), whole) in &mut whole {
        for id in *first..first.saturating_add(sqlite::row_count(*len)) {
            let mut found: Option<(Option<Vec<u8>>, bool, Vec<u8>)> = None;
            read(from, "SELECT digest, packed, bytes FROM blobs WHERE id = ?1", [id], &mut |row| {
                found = Some((row.get(0)?, row.get(1)?, row.get(2)?));
                Ok(())
            });
            match found {
                Some((digest, packed, bytes)) => insert.execute(params![id, digest, packed, bytes])?,
                None => {
                    *whole = false;
                    break;
                }
            };
        }
    }
    results.retain(|key, bytes| place(key, bytes).is_none_or(|place| whole[&place]));
    Ok(whole.values().filter(|whole| !**whole).count())
}

/// Hands out rows up to one that cannot be read; whether there was none.
fn read(
    from: &Connection,
    query: &str,
    params: impl Params,
    each: &mut dyn FnMut(&Row) -> rusqlite::Result<()>,
) -> bool {
    let rows = || {
        let mut statement = from.prepare_cached(query)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            each(row)?;
        }
        Ok::<(), rusqlite::Error>(())
    };
    rows().is_ok()
}

/// Takes the old database away. From here on the new one counts.
fn move_old(dir: &StoreDir) -> io::Result<()> {
    let quarantine = dir.quarantine_dir();
    // That of an earlier one does not belong to this one.
    missing_is_fine(fs::remove_file(quarantine.join("store.db-wal")))?;
    fs::rename(dir.database_path(), quarantine.join("store.db"))
}

fn move_new(dir: &StoreDir) -> io::Result<()> {
    let (quarantine, old) = (dir.quarantine_dir(), dir.database_path());
    // Left where it is, it would be taken for that of the new one.
    missing_is_fine(fs::rename(beside(&old, "-wal"), quarantine.join("store.db-wal")))?;
    missing_is_fine(fs::remove_file(beside(&old, "-shm")))?;
    File::open(&quarantine)?.sync_all()?;
    File::open(&dir.path)?.sync_all()?;
    fs::rename(new_path(dir), old)?;
    File::open(&dir.path)?.sync_all()
}

/// Removes a database.
fn remove(path: &Path) -> io::Result<()> {
    ["-wal", "-shm", ""].iter().try_for_each(|end| missing_is_fine(fs::remove_file(beside(path, end))))
}

fn new_path(dir: &StoreDir) -> PathBuf {
    beside(&dir.database_path(), ".new")
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    done.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn during(path: &Path, error: io::Error) -> StoreError {
    StoreError::Io(format!("put {} in the place of the damaged database", path.display()), error)
}
