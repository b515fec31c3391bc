//! Forkyard maps each large read-only artifact once, forks a pool of workers onto that mapping, sends them
//! the nodes of a DAG, and keeps every result in a content-addressed store.
//!
//! This crate is the coordinator: the event loop, the scheduler, the store and the command line. What the
//! processes below it do is in `forkyard-worker`; what both sides agree on is in `forkyard-shared`.
//!
//! A program with ops of its own has a [`Pool`], and submits nodes to it from any thread:
//!
//! ```no_run
//! use forkyard::{Failed, Node, Ops, Output, Pool, Task, Workers};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // First line: the zygote starts here too. Workers are copies of the process as it is now.
//!     forkyard::init(Ops::standard().op("length", |task: &Task| -> Result<Output, Failed> {
//!         let row: u64 = task.param("row")?;
//!         let bytes = task.matrix()?.row_bytes(row).ok_or_else(|| Failed::new("there is no such row"))?;
//!         Output::json(&bytes.len())
//!     }));
//!     let pool = Pool::builder().artifact("m", "m.npy").workers(Workers::Auto).start()?;
//!     let ticket = pool.submit(Node::new("length").artifact("m").param("row", 7))?;
//!     println!("{}", ticket.wait()?.json::<u64>()?);
//!     Ok(())
//! }
//! ```
//!
//! `examples/rust-ops` is such a program. One that calls [`main`] in place of making a pool is the `forkyard` command
//! with ops of its own.
//!
//! # In a host program
//!
//! The process becomes a subreaper: what its own children leave behind when they end becomes its child, and no longer
//! that of `init`. A pool waits for and kills nothing but what it has started itself. It changes no signal's mask or
//! handler outside of its own threads, which block all signals, and raises the soft limit of open files. The zygote ends with the thread that
//! called [`init`], which is the main thread.

mod admission;
mod alerts;
mod analysis;
mod artifacts;
mod attempts;
#[doc(hidden)]
pub mod bench;
mod cli;
mod code;
mod context_file;
mod cost;
mod counts;
mod crew;
mod doctor;
mod dry_run;
mod early;
mod embed;
mod engine;
mod export;
mod expr;
mod fields;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod graph;
mod hands;
mod importer;
mod inbox;
mod init;
mod key;
mod limits;
mod manifest;
mod marks;
mod memory;
mod names;
mod nodes;
mod only;
mod places;
mod plan;
mod pool;
mod preset;
mod queue;
mod report;
mod room;
mod run;
mod sample;
mod schedule;
#[cfg(test)]
mod schedule_tests;
mod simulate;
mod state;
mod stats;
mod store;
mod stress;
mod sweep;
mod text;
mod threads;
mod timers;
mod tune;
mod wfformat;
mod why;

pub use cli::main;
pub use embed::{
    Builder, Node, Pool, StartError, SubmitError, TaskError, Ticket, Value, ValueError, Workers,
};
pub use forkyard_worker::{Failed, Op, Ops, Output, State, Task};
pub use init::init;
