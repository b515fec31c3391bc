//! Contexts as their readers see them: consistent views of a state that goes on changing, each named by
//! one arena offset. Everything here only reads; the coordinator's `state` writes what is drawn here.
//!
//! As in PostgreSQL, the state is multi-version: a key has one version for each writer that set it, and a
//! context is the set of the writers it sees. Its value of a key is the version of the highest [`Rank`]
//! among the writers that are in both.
//!
//! ```text
//! diff:   rank | count | digest (32 bytes) | entries, by key | values     what one writer wrote, at once
//! entry:  rank | key id << 32 | length | offset of the value              length u32::MAX: removed
//! trie:   see `trie`; its leaves are diffs (a context) or entries (the versions of a key)
//! keys:   see `keys`; from a name to an id, from an id to its versions
//! ```
//!
//! (Tries joined key by key, a map for each context, look simpler and cost a hundred times more on a
//! layered DAG.)

mod diff;
mod keys;
mod snapshot;
mod trie;

pub use diff::{DIFF_HEADER_BYTES, Diff, ENTRY_BYTES, Entry, REMOVED};
pub use keys::{
    KEY_COUNT_ROOT, KeyId, Place, RECORD_BYTES, Record, TABLE_ROOT, find, hash, place_of, record_at,
};
pub use snapshot::Snapshot;
pub use trie::{Link, NODE_WORDS, Node, Span, highest_common, leaves, rank_of};

/// Where a writer stands among all writers. Descendants rank above their ancestors; between strangers
/// the manifest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u64);

/// What a node sees: the offset of a set of writers. Copying it costs nothing; whoever keeps it needs a
/// claim, which the coordinator counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Context(pub u64);

impl Context {
    /// The context in which nothing was ever set.
    pub const EMPTY: Context = Context(0);
}
