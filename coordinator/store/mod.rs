//! The store: results by node key, blobs by digest, one directory a run.
//!
//! ```text
//!   .forkyard/
//!     store.db           SQLite, write-ahead log: results, small blobs
//!     blobs/ab/<digest>  large blobs, read-only files
//!     runs/<id>/         one run: what it was, what became of each node
//!     tmp/               unfinished files; cleared when a store is opened for a run
//!     quarantine/        blobs whose bytes did not match their name
//!     digests.json       digests of artifacts and files, by what `stat` says of them
//!     lock               held by a run's whole pool
//! ```

mod database;
mod digests;
mod index;
mod journal;
mod layout;
mod lock;
mod reader;
mod record;
mod runs;
mod writer;

pub(crate) use digests::DigestMemo;
pub(crate) use journal::{JournalEntry, Outcome, read_journal};
pub(crate) use layout::Layout;
pub use layout::StoreError;
pub(crate) use lock::{Lock, holder};
pub(crate) use reader::Reader;
pub(crate) use record::{Place, Record};
pub(crate) use runs::{RunDir, RunHeader, RunSummary, latest_run, list_runs};
pub(crate) use writer::{NewResult, NewValue, Writer, WriterSettings};
