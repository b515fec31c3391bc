//! The arena: shared memory that the coordinator alone writes and every worker reads. A value is
//! written once and named by its offset, so that a message is a few dozen bytes whatever it names.
//!
//! ```text
//!      0  backed     how many bytes can be read
//!      8  root 0     where readers find what they were not told the offset of
//!    ...
//!   4096  blocks     from here on, in segments of 1 MiB; offset 0 therefore means "nothing"
//! ```
//!
//! Blocks are recycled: whoever reads one needs a claim on it (the task that it belongs to runs, the
//! context that it belongs to is retained), and the writer frees none that somebody has a claim on. A
//! reader without a claim reads other bytes, nothing worse. Memory is recycled, never given back to the
//! system: the seal that keeps readers from writing also forbids punching holes.

mod blocks;
mod error;
#[cfg(test)]
mod publication_tests;
mod writer;

pub use error::ArenaError;
pub use writer::ArenaWriter;

pub use crate::mapping::ArenaReader;

/// How many roots the header has.
pub const ROOTS: usize = 64;

/// Where the blocks begin.
const HEADER_BYTES: u64 = 4096;

/// The arena grows by so much.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The offset of a root, which is a word like any other.
///
/// # Panics
/// When there is no such root.
pub const fn root_at(root: usize) -> u64 {
    assert!(root < ROOTS, "BUG: no such root");
    8 + 8 * root as u64
}
