//! What the machine itself can do: bare loops, without a coordinator, that `scripts/figures` sets
//! beside the figures of whole runs. Each prints one JSON object.
//!
//! Not a Criterion bench: each loop is measured once, whole, and most of them fork.

mod bare_spawn;
mod echo;

use std::error::Error;
use std::ffi::CString;
use std::fs::File;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forkyard_shared::artifact::{Matrix, Shape, read_npy};
use forkyard_shared::codec::Frame;
use forkyard_shared::mapping::Mapping;
use forkyard_shared::scan::{Metric, ScanError, Search, row_as_f32};
use forkyard_shared::sys;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::ForkResult;
use serde_json::{Value, json};

use echo::Echo;

const USAGE: &str = "usage: floors scans FILE.npy QUERIES THREADS | forks FILE.npy CHILDREN | round_trip COUNT | \
                     spawns PROGRAM COUNT PROCESSES";
const K: usize = 10;
const FRAME_BYTES: usize = 64;

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match measure(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("floors: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &[&str]) -> Result<Value, Box<dyn Error>> {
    match args {
        ["scans", file, queries, threads] => scans(&Rows::map(file)?, queries.parse()?, threads.parse()?),
        ["forks", file, children] => forks(&Rows::map(file)?, children.parse()?),
        ["round_trip", count] => round_trip(count.parse()?),
        ["spawns", program, count, processes] => spawns(program, count.parse()?, processes.parse()?),
        _ => Err(USAGE.into()),
    }
}

/// A matrix in memory.
struct Rows {
    shape: Shape,
    bytes: Mapping,
}

impl Rows {
    fn map(path: &str) -> Result<Rows, Box<dyn Error>> {
        let file = File::open(path).map_err(|error| format!("open {path}: {error}"))?;
        let shape = read_npy(&file, file.metadata()?.len()).map_err(|error| format!("{path}: {error}"))?;
        let bytes = Mapping::of(&file)?;
        bytes.populate();
        Ok(Rows { shape, bytes })
    }

    /// One of `of` queries: the ten nearest to a row of its own.
    fn scan(&self, query: u64, of: u64) -> Result<(), ScanError> {
        let matrix = Matrix::new(&self.shape, &self.bytes).expect("the file was checked when it was read");
        let row = row_as_f32(&matrix, query * self.shape.rows / of)?;
        Search::new(K, Metric::Cosine).nearest(&matrix, &row).map(drop)
    }
}

/// Threads of one process over one mapping.
fn scans(rows: &Rows, queries: u64, threads: u64) -> Result<Value, Box<dyn Error>> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let scan_share = |first| {
            (first..queries).step_by(threads as usize).try_for_each(|query| rows.scan(query, queries))
        };
        let started: Vec<_> = (0..threads).map(|first| scope.spawn(move || scan_share(first))).collect();
        started.into_iter().try_for_each(|thread| thread.join().expect("a scan does not panic"))
    })?;
    Ok(json!({ "queries_per_s": queries as f64 / start.elapsed().as_secs_f64() }))
}

/// Children on one mapping, each with one scan.
fn forks(rows: &Rows, children: u64) -> Result<Value, Box<dyn Error>> {
    let start = Instant::now();
    for child in 0..children {
        if let ForkResult::Child = sys::fork()? {
            sys::exit_now(i32::from(rows.scan(child, children).is_err()));
        }
    }
    wait_for(children)?;
    Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
}

/// Processes that each start their share of commands, one after the other.
fn spawns(program: &str, count: u64, processes: u64) -> Result<Value, Box<dyn Error>> {
    let (program, nothing) = (CString::new(program)?, File::open("/dev/null")?);
    let start = Instant::now();
    for process in 0..processes {
        if let ForkResult::Child = sys::fork()? {
            let mut share = (process..count).step_by(processes as usize);
            sys::exit_now(i32::from(share.try_for_each(|_| bare_spawn::run(&program, &nothing)).is_err()));
        }
    }
    wait_for(processes)?;
    Ok(json!({ "commands_per_s": count as f64 / start.elapsed().as_secs_f64() }))
}

fn wait_for(children: u64) -> Result<(), Box<dyn Error>> {
    for _ in 0..children {
        match wait()? {
            WaitStatus::Exited(_, 0) => {}
            other => return Err(format!("a child could not do its part: {other:?}").into()),
        }
    }
    Ok(())
}

/// A small message to another process and back.
fn round_trip(count: u32) -> Result<Value, Box<dyn Error>> {
    let mean_us = |spin| -> Result<f64, Box<dyn Error>> {
        let echo = Echo::fork(spin)?;
        let mut frame = Frame(vec![0; FRAME_BYTES]);
        let start = Instant::now();
        for _ in 0..count {
            frame = echo.round_trip(frame);
        }
        Ok(1e6 * start.elapsed().as_secs_f64() / f64::from(count))
    };
    Ok(json!({ "awake_us": mean_us(Duration::MAX)?, "asleep_us": mean_us(Duration::ZERO)? }))
}
