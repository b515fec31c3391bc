//! Gives keys their ids: the writing half of `forkyard_shared::context::keys`, which draws the layout.

use forkyard_shared::arena::{ArenaError, ArenaWriter, root_at};
use forkyard_shared::context::{
    KEY_COUNT_ROOT, KeyId, RECORD_BYTES, Record, TABLE_ROOT, find, hash, place_of, record_at,
};

use super::epochs::Epochs;

const FIRST_SLOTS: u64 = 64;

/// The id of a key, which is new if nobody ever set it.
pub(super) fn intern(arena: &mut ArenaWriter, epochs: &mut Epochs, key: &str) -> Result<KeyId, ArenaError> {
    if let Some((id, _)) = find(arena, key)? {
        return Ok(id);
    }
    let count = arena.load(root_at(KEY_COUNT_ROOT))?;
    let id = KeyId(count as u32);
    make_room(arena, epochs, count)?;
    let record = new_record(arena, id)?;
    let mut block = (key.len() as u64).to_le_bytes().to_vec();
    block.extend(key.as_bytes());
    let name = arena.put(&block)?;
    arena.store(record, 0);
    arena.store(record + 8, name);
    // In this order: who finds the id finds its record, and who counts the keys too.
    arena.store(root_at(KEY_COUNT_ROOT), count + 1);
    let table = arena.load(root_at(TABLE_ROOT))?;
    fill_slot(arena, table, hash(key), id)?;
    Ok(id)
}

/// Doubles the table when it is half full.
fn make_room(arena: &mut ArenaWriter, epochs: &mut Epochs, count: u64) -> Result<(), ArenaError> {
    let old = arena.load(root_at(TABLE_ROOT))?;
    let slots = if old == 0 { 0 } else { arena.load(old)? };
    if 2 * count < slots {
        return Ok(());
    }
    let more = (2 * slots).max(FIRST_SLOTS);
    let mut words = vec![0; more as usize + 1];
    words[0] = more;
    let new = arena.put_words(&words)?;
    for id in (0..count as u32).map(KeyId) {
        let hash = hash(Record::of(arena, id)?.name(arena)?);
        fill_slot(arena, new, hash, id)?;
    }
    arena.store(root_at(TABLE_ROOT), new);
    if old != 0 {
        epochs.retire(old, 8 * (slots + 1), arena);
    }
    Ok(())
}

fn fill_slot(arena: &mut ArenaWriter, table: u64, hash: u64, id: KeyId) -> Result<(), ArenaError> {
    let mask = arena.load(table)? - 1;
    let mut slot = hash & mask;
    while arena.load(table + 8 + 8 * slot)? != 0 {
        slot = (slot + 1) & mask;
    }
    arena.store(table + 8 + 8 * slot, hash >> 32 << 32 | u64::from(id.0 + 1));
    Ok(())
}

fn new_record(arena: &mut ArenaWriter, id: KeyId) -> Result<u64, ArenaError> {
    let place = place_of(id);
    if place.index == 0 {
        let chunk = arena.alloc(place.records * RECORD_BYTES)?;
        arena.store(root_at(place.root), chunk);
    }
    record_at(arena, id)
}
