//! Reading the state as one node sees it. Takes no lock and never waits: what the coordinator writes
//! meanwhile has ranks that are not in this context.

use super::{Context, Diff, Entry, KEY_COUNT_ROOT, KeyId, Link, Rank, Record, find, highest_common, leaves};
use crate::arena::{ArenaError, ArenaReader, root_at};

/// A context and the arena that it is in. Whoever reads needs a claim on the context, and must have
/// announced it to the coordinator's state, which else recycles what is replaced meanwhile.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    /// The arena.
    pub arena: &'a ArenaReader,
    /// The context.
    pub context: Context,
}

impl<'a> Snapshot<'a> {
    /// What a key is set to; `None` when no visible writer set it, or the last one removed it.
    #[inline]
    pub fn get(&self, key: &str) -> Result<Option<&'a [u8]>, ArenaError> {
        let Some((_, record)) = find(self.arena, key)? else { return Ok(None) };
        match self.visible(record)? {
            Some(at) => Entry::at(self.arena, at)?.value(self.arena),
            None => Ok(None),
        }
    }

    /// Calls `f` with each key that is set and its value, once, by the rank of who set it and by key. The
    /// order depends on what is visible alone.
    pub fn iter(&self, mut f: impl FnMut(&'a str, &'a [u8])) -> Result<(), ArenaError> {
        let mut visit = |record: Record, entry: Entry| {
            if let Some(value) = entry.value(self.arena)? {
                f(record.name(self.arena)?, value);
            }
            Ok(())
        };
        let keys = self.arena.load(root_at(KEY_COUNT_ROOT))? as u32;
        if self.has_more_versions_than(keys.into())? {
            return self.iter_keys(keys, visit);
        }
        self.each_writer(|diff| {
            for (at, entry) in diff.entries(self.arena)? {
                let record = Record::of(self.arena, entry.key)?;
                // With one version there is nothing to look for: it is this one.
                if record.versions == Link::Leaf(at) || self.visible(record)? == Some(at) {
                    visit(record, entry)?;
                }
            }
            Ok(true)
        })
    }

    /// The writers that are visible, by rank.
    pub fn writers(&self) -> Result<Vec<Rank>, ArenaError> {
        let mut ranks = Vec::new();
        self.each_writer(|diff| {
            ranks.push(diff.rank);
            Ok(true)
        })?;
        Ok(ranks)
    }

    /// Calls `f` with what each visible writer wrote, by rank, until it says that this is enough.
    pub fn each_writer<E: From<ArenaError>>(
        &self,
        mut f: impl FnMut(Diff) -> Result<bool, E>,
    ) -> Result<(), E> {
        leaves(self.arena, Link::of(self.context.0), &mut |at| f(Diff::at(self.arena, at)?)).map(drop)
    }

    /// The version of a key that this context sees.
    #[inline]
    fn visible(&self, record: Record) -> Result<Option<u64>, ArenaError> {
        highest_common(self.arena, Link::of(self.context.0), record.versions)
    }

    /// When most versions are superseded, looking up each key costs less than walking over them all.
    fn has_more_versions_than(&self, keys: u64) -> Result<bool, ArenaError> {
        let mut versions = 0_u64;
        self.each_writer(|diff| {
            versions = versions.saturating_add(diff.count);
            Ok::<_, ArenaError>(versions <= keys)
        })?;
        Ok(versions > keys)
    }

    /// The same, in the same order, key by key.
    fn iter_keys(
        &self,
        keys: u32,
        mut visit: impl FnMut(Record, Entry) -> Result<(), ArenaError>,
    ) -> Result<(), ArenaError> {
        let mut found = Vec::new();
        for key in (0..keys).map(KeyId) {
            let record = Record::of(self.arena, key)?;
            if let Some(at) = self.visible(record)? {
                found.push((at, record, Entry::at(self.arena, at)?));
            }
        }
        // Entries of one writer lie in one block, by key.
        found.sort_unstable_by_key(|(at, _, entry)| (entry.rank, *at));
        found.into_iter().try_for_each(|(_, record, entry)| visit(record, entry))
    }
}
