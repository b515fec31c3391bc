//! What the machine itself can do, measured in the same process before the run: figures of two machines are compared as
//! ratios to these.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Instant;

use forkyard_shared::sys;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;
use rusqlite::Connection;

use super::site::Site;
use super::{Profile, load};
use crate::stats::Series;

const ROUND_TRIPS: usize = 2000;
const FORKS: usize = 500;
/// Rows of 64 bytes, as a result without a value takes them, and rows in a group.
const ROWS: usize = 200_000;
const ROWS_A_GROUP: usize = 4096;
const WRITTEN_BYTES: usize = 64 << 20;

pub(super) struct Floors(Vec<(&'static str, f64)>);

impl Floors {
    /// Measures what belongs to a profile. The process must have one thread.
    pub fn measure(profile: Profile, site: &Site) -> io::Result<Floors> {
        let mut floors = Vec::new();
        if profile == Profile::Latency {
            let trips = round_trips()?;
            for (name, part) in [("round_trip_p50_s", 0.5), ("round_trip_p99_s", 0.99)] {
                floors.push((name, trips.quantile(part) as f64 / 1e9));
            }
        }
        if matches!(profile, Profile::Fork | Profile::Mixed) {
            let seconds = fork()?;
            floors.extend([("fork_s", seconds), ("forks_per_s", 1.0 / seconds)]);
        }
        if matches!(profile, Profile::Throughput | Profile::Mixed) {
            floors.push(("sqlite_rows_per_s", rows(site).map_err(io::Error::other)?));
        }
        if profile == Profile::Store {
            floors.push(("written_bytes_per_s", write(site)?));
        }
        if profile == Profile::Memory {
            floors.push(("artifact_bytes", load::MATRIX_BYTES as f64));
        }
        Ok(Floors(floors))
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(floor, _)| *floor == name).map(|(_, value)| *value)
    }

    pub fn list(&self) -> Vec<(&'static str, f64)> {
        self.0.clone()
    }
}

/// Nanoseconds of a byte to another process and back, where both sleep in between.
fn round_trips() -> io::Result<Series> {
    let ((mut from_us, mut to_other), (mut from_other, mut to_us)) = (io::pipe()?, io::pipe()?);
    let mut byte = [0];
    match sys::fork()? {
        ForkResult::Child => {
            drop((to_other, from_other));
            while matches!(from_us.read(&mut byte), Ok(1)) && to_us.write_all(&byte).is_ok() {}
            sys::exit_now(0)
        }
        ForkResult::Parent { child } => {
            drop((from_us, to_us));
            let mut trips = Series::default();
            for _ in 0..ROUND_TRIPS {
                let start = Instant::now();
                to_other.write_all(&byte)?;
                from_other.read_exact(&mut byte)?;
                trips.add(start.elapsed().as_nanos() as u64);
            }
            drop((to_other, from_other));
            waitpid(child, None)?;
            Ok(trips)
        }
    }
}

/// Seconds of a fork of this process, the end of the child, and the wait for it.
fn fork() -> io::Result<f64> {
    let start = Instant::now();
    for _ in 0..FORKS {
        match sys::fork()? {
            ForkResult::Child => sys::exit_now(0),
            ForkResult::Parent { child } => drop(waitpid(child, None)?),
        }
    }
    Ok(start.elapsed().as_secs_f64() / FORKS as f64)
}

/// Rows a second that bare SQLite appends, each group of them on the disk before the next begins.
fn rows(site: &Site) -> rusqlite::Result<f64> {
    let mut connection = Connection::open(site.path("floor.db"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("CREATE TABLE log (seq INTEGER PRIMARY KEY, row BLOB NOT NULL)")?;
    let start = Instant::now();
    for first in (0..ROWS).step_by(ROWS_A_GROUP) {
        let group = connection.transaction()?;
        let mut insert = group.prepare_cached("INSERT INTO log (row) VALUES (?1)")?;
        for row in first..(first + ROWS_A_GROUP).min(ROWS) {
            insert.execute([[row as u8; 64]])?;
        }
        drop(insert);
        group.commit()?;
    }
    Ok(ROWS as f64 / start.elapsed().as_secs_f64())
}

/// Bytes a second that one file takes, until all are on the disk.
fn write(site: &Site) -> io::Result<f64> {
    let chunk = vec![1; 1 << 20];
    let start = Instant::now();
    let mut file = File::create(site.path("floor"))?;
    for _ in 0..WRITTEN_BYTES / chunk.len() {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    Ok(WRITTEN_BYTES as f64 / start.elapsed().as_secs_f64())
}
