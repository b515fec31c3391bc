//! Forkyard maps each large read-only artifact once, forks a pool of workers onto that mapping, sends them
//! the nodes of a DAG, and keeps every result in a content-addressed store.
//!
//! This crate is the coordinator: the event loop, the scheduler, the store and the command line. What the
//! processes below it do is in `forkyard-worker`; what both sides agree on is in `forkyard-shared`.
//!
//! A program that brings ops of its own starts like `forkyard` itself does:
//!
//! ```no_run
//! use forkyard::{Failed, Ops, Output, Task};
//!
//! fn main() -> std::process::ExitCode {
//!     forkyard::init(Ops::standard().op("double", |task: &Task| -> Result<Output, Failed> {
//!         let x: f64 = task.param("x")?;
//!         Output::json(&(2.0 * x))
//!     }));
//!     forkyard::main()
//! }
//! ```

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
mod engine;
mod export;
mod expr;
mod fields;
mod graph;
mod hands;
mod init;
mod key;
mod limits;
mod manifest;
mod memory;
mod names;
mod nodes;
mod only;
mod places;
mod plan;
mod pool;
mod preset;
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
pub use forkyard_worker::{Failed, Op, Ops, Output, Task};
pub use init::init;
