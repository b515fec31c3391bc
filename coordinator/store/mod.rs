//! The store: results by node key, values by digest, one directory a run.
//!
//! ```text
//!   .forkyard/
//!     store.json         format and layout
//!     store.db           SQLite, write-ahead log: results, small values (layouts sqlite and hybrid)
//!     results/ab/<key>   a file for each result (layout filesystem)
//!     blobs/ab/<digest>  large values, read-only files (layouts hybrid and filesystem)
//!     runs/<id>/         one run: what it was, what became of each node
//!     tmp/               unfinished files; cleared when a store is opened for a run
//!     quarantine/        what did not match its check or its name; a malformed database
//!     digests.json       digests of artifacts and files, by what `stat` says of them
//!     lock               held by a run's whole pool, and by whoever cleans up
//! ```
//!
//! [`backend`] is what the layouts do differently; everything else is the same for all.

mod backend;
mod census;
#[cfg(test)]
mod conformance_tests;
mod digests;
mod dir;
mod error;
mod fields;
mod files;
mod format;
mod gc;
mod index;
mod journal;
mod live;
mod lock;
#[cfg(any(test, fuzzing))]
mod memory;
mod netfs;
mod packed;
mod reader;
mod record;
mod runs;
mod salvage;
mod sqlite;
mod verify;
mod writer;

pub(crate) use backend::{NewResult, NewValue};
pub(crate) use census::{Census, NamedResults, named_results};
pub(crate) use digests::{DigestMemo, Stamp};
pub(crate) use dir::StoreDir;
pub use error::StoreError;
pub(crate) use fields::read_fields;
pub(crate) use format::{FORMAT, Layout};
pub(crate) use gc::{Keep, plan as plan_gc};
pub(crate) use journal::{JournalEntry, Outcome, read_journal};
pub(crate) use live::Live;
pub(crate) use lock::{Lock, holder};
#[cfg(any(test, fuzzing))]
pub(crate) use memory::Memory;
pub(crate) use netfs::network_file_system;
pub(crate) use reader::{AtHand, Learnt, Lost, Reader};
pub(crate) use record::{Extra, Place, Record};
pub(crate) use runs::{RunDir, RunHeader, RunSummary, Shares, latest_summary};
pub(crate) use verify::verify;
pub(crate) use writer::{Writer, WriterSettings};
