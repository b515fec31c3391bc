//! The one writer of the state: joins contexts, adds what nodes wrote, and gives contexts their digests.

use std::collections::HashMap;

use forkyard_shared::arena::{ArenaError, ArenaWriter};
use forkyard_shared::context::{
    Context, DIFF_HEADER_BYTES, ENTRY_BYTES, KeyId, Link, REMOVED, Rank, Snapshot, record_at,
};
use forkyard_shared::digest::{Digest, Hasher};

use super::epochs::{Epochs, Ticket};
use super::error::StateError;
use super::sets::{Sets, claim};
use super::{keys, versions};

/// What one writer sets (`Some`) and removes (`None`).
type Writes<'a> = [(&'a str, Option<&'a [u8]>)];

/// The state of a run.
pub struct State {
    arena: ArenaWriter,
    sets: Sets,
    epochs: Epochs,
    /// Who has written, and where; nothing of whom there was no room for.
    wrote: HashMap<Rank, Option<u64>>,
    /// The digests of sets that live.
    digests: HashMap<u64, Digest>,
}

impl State {
    /// The state in which nothing was ever set. Its arena must be new; others may put blocks into it too.
    pub fn new(arena: ArenaWriter) -> State {
        State {
            arena,
            sets: Sets::default(),
            epochs: Epochs::default(),
            wrote: HashMap::new(),
            digests: HashMap::new(),
        }
    }

    /// The arena that the state is in.
    pub fn arena(&self) -> &ArenaWriter {
        &self.arena
    }

    /// The same, for what else is put there.
    pub fn arena_mut(&mut self) -> &mut ArenaWriter {
        &mut self.arena
    }

    /// A context that sees what any of the parents sees, claimed for the caller.
    ///
    /// # Errors
    /// When the arena is full.
    pub fn join(&mut self, parents: &[Context]) -> Result<Context, ArenaError> {
        let mut sets: Vec<u64> = parents.iter().map(|parent| parent.0).collect();
        // Most parents of a wide join see the same.
        sets.sort_unstable();
        sets.dedup();
        // In pairs: a join of many is not built anew for each of them. Every set in the list is claimed,
        // because those halfway are nobody else's.
        sets.iter().for_each(|set| claim(&mut self.arena, *set));
        while sets.len() > 1 {
            let mut pairs = std::mem::take(&mut sets).into_iter();
            while let Some(a) = pairs.next() {
                let Some(b) = pairs.next() else {
                    sets.push(a);
                    break;
                };
                let union = self.sets.union(&mut self.arena, a, b)?;
                claim(&mut self.arena, union);
                self.release(Context(a));
                self.release(Context(b));
                sets.push(union);
            }
        }
        Ok(Context(sets.pop().unwrap_or_default()))
    }

    /// The context that sees what `base` sees and what this writer writes, claimed for the caller. Of
    /// several writes of one key the last counts. Who writes nothing is no writer.
    ///
    /// # Errors
    /// When the rank has written before, or the arena is full: then nobody ever sees the write.
    pub fn write(
        &mut self,
        base: Context,
        rank: Rank,
        diff: &[(String, Option<Vec<u8>>)],
    ) -> Result<Context, StateError> {
        if diff.is_empty() {
            self.retain(base);
            return Ok(base);
        }
        let mut writes: Vec<_> = diff.iter().rev().map(|(key, value)| (&**key, value.as_deref())).collect();
        writes.sort_by_key(|(key, _)| *key);
        writes.dedup_by_key(|(key, _)| *key);
        let long =
            |(_, value): &&(&str, Option<&[u8]>)| value.is_some_and(|value| value.len() >= REMOVED as usize);
        if let Some((key, value)) = writes.iter().find(long) {
            return Err(StateError::TooLong { key: (*key).into(), bytes: value.map_or(0, <[u8]>::len) });
        }
        if self.wrote.contains_key(&rank) {
            return Err(StateError::WrittenTwice(rank));
        }
        self.wrote.insert(rank, None);
        let diff = self.put(rank, &writes)?;
        self.wrote.insert(rank, Some(diff));
        let context = self.sets.union(&mut self.arena, base.0, Link::Leaf(diff).word())?;
        claim(&mut self.arena, context);
        Ok(Context(context))
    }

    /// The context that sees what `base` sees and what these have written, claimed for the caller. Who has not written
    /// is no writer.
    ///
    /// # Errors
    /// When the arena is full.
    pub fn with_writers(&mut self, base: Context, ranks: &[Rank]) -> Result<Context, ArenaError> {
        self.retain(base);
        let mut context = base;
        let diffs: Vec<u64> = ranks.iter().filter_map(|rank| *self.wrote.get(rank)?).collect();
        for diff in diffs {
            let union = self.sets.union(&mut self.arena, context.0, Link::Leaf(diff).word())?;
            claim(&mut self.arena, union);
            self.release(context);
            context = Context(union);
        }
        Ok(context)
    }

    /// Whether a writer of this rank has written.
    pub fn has_written(&self, rank: Rank) -> bool {
        self.wrote.contains_key(&rank)
    }

    /// Puts the diff of a writer, and adds its entries to the versions of their keys.
    fn put(&mut self, rank: Rank, writes: &Writes) -> Result<u64, ArenaError> {
        let arena = &mut self.arena;
        let ids = writes.iter().map(|(key, _)| keys::intern(arena, &mut self.epochs, key));
        let ids: Vec<KeyId> = ids.collect::<Result<_, _>>()?;
        let head = DIFF_HEADER_BYTES + ENTRY_BYTES * writes.len() as u64;
        let values: u64 = writes.iter().flat_map(|(_, value)| value).map(|value| value.len() as u64).sum();
        let at = arena.alloc(head + values)?;

        let mut block = Vec::with_capacity((head + values) as usize);
        block.extend(rank.0.to_le_bytes());
        block.extend((writes.len() as u64).to_le_bytes());
        block.extend(digest(writes).0);
        let mut value_at = at + head;
        for ((_, value), id) in writes.iter().zip(&ids) {
            let len = value.map_or(REMOVED, |value| value.len() as u32);
            block.extend(rank.0.to_le_bytes());
            block.extend((u64::from(id.0) << 32 | u64::from(len)).to_le_bytes());
            block.extend(value_at.to_le_bytes());
            value_at += value.map_or(0, |value| value.len() as u64);
        }
        writes.iter().flat_map(|(_, value)| value).for_each(|value| block.extend(*value));
        arena.write(at, &block);

        for (id, entry) in ids.into_iter().zip((at + DIFF_HEADER_BYTES..).step_by(ENTRY_BYTES as usize)) {
            let record = record_at(arena, id)?;
            versions::add(arena, &mut self.epochs, record, rank, entry)?;
        }
        Ok(at)
    }

    /// Claims a context once more.
    pub fn retain(&mut self, context: Context) {
        claim(&mut self.arena, context.0);
    }

    /// Gives a claim back. A context without claims is gone.
    pub fn release(&mut self, context: Context) {
        let digests = &mut self.digests;
        self.sets.release(&mut self.arena, context.0, |set| {
            digests.remove(&set);
        });
    }

    /// The state as a node of this context sees it.
    pub fn snapshot(&self, context: Context) -> Snapshot<'_> {
        Snapshot { arena: &self.arena, context }
    }

    /// The digest of what a context sees: over what each writer wrote, by rank. It does not change when
    /// ranks do but their order does not.
    ///
    /// # Errors
    /// When the context is none of this state.
    pub fn digest(&mut self, context: Context) -> Result<Digest, ArenaError> {
        if let Some(digest) = self.digests.get(&context.0) {
            return Ok(*digest);
        }
        let mut hasher = Hasher::new();
        self.snapshot(context).each_writer(|diff| {
            hasher.update(&diff.digest(&self.arena)?.0);
            Ok::<_, ArenaError>(true)
        })?;
        let digest = hasher.finish();
        // Only nodes are told when they are gone; a set of one writer is soon hashed.
        if let Link::Node(at) = Link::of(context.0) {
            self.digests.insert(at, digest);
        }
        Ok(digest)
    }

    /// A reader in another process is about to start: what it may see is not recycled until it is done.
    /// Call it before the reader is told its context.
    pub fn reader_started(&mut self) -> Ticket {
        self.epochs.started()
    }

    /// That reader will not read any more.
    pub fn reader_done(&mut self, ticket: Ticket) {
        self.epochs.done(ticket, &mut self.arena);
    }
}

/// The digest of what a writer wrote, which must be sorted.
fn digest(writes: &Writes) -> Digest {
    let mut hasher = Hasher::new();
    for (key, value) in writes {
        hasher.field(key.as_bytes());
        match value {
            Some(value) => {
                hasher.update(&[1]);
                hasher.field(value);
            }
            None => hasher.update(&[0]),
        }
    }
    hasher.finish()
}
