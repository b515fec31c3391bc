//! Records of a JSON Lines file or a JSON document, by row and by key, over the bytes of the file and its offset table.
//! Copies nothing and builds nothing: [`super::index_jsonl`] and [`super::index_json`] make the table.
//!
//! The table, all numbers 64-bit little-endian:
//!
//! ```text
//!  0         8         16      24                                      end of table
//! +---------+---------+-------+-----------------+---------+------------+
//! | records | slots   | keyed | spans (records  | hash    | key field, |
//! |         |         | by    | x start, end)   | slots   | UTF-8      |
//! +---------+---------+-------+-----------------+---------+------------+
//!  keyed by: 0, the key is a field of the record; 1, a span is a member of an object, `"key": record`
//!
//! a slot:  63          40 39                          0
//!         +--------------+-----------------------------+
//!         | top 24 bits  | row + 1; the whole slot     |
//!         | of the hash  | is 0 when it is free        |
//!         +--------------+-----------------------------+
//! ```
//!
//! A key is looked for from slot `hash % slots` upwards, around the end, until a free slot. The 24
//! bits only spare us most wrong candidates; a candidate's real key is always compared.

use std::ops::Range;

use super::ArtifactError;
use super::key::record_key;
use crate::digest::Digest;

const ROW_BITS: u32 = 40;

/// The part of a table before its spans.
pub const RECORDS_HEADER_BYTES: usize = 24;

/// Where the key of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyedBy {
    /// In a field of it.
    Field = 0,
    /// Before it: it is the value of a member of an object.
    Member = 1,
}

/// A view of a file of records and its offset table.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    keyed_by: KeyedBy,
    spans: &'a [[u8; 16]],
    slots: &'a [[u8; 8]],
    key_field: &'a str,
}

/// The table of records at `spans`, with these hash slots.
pub(super) fn table(keyed_by: KeyedBy, spans: &[Range<u64>], slots: &[u64], key_field: &str) -> Vec<u8> {
    let header = [spans.len() as u64, slots.len() as u64, keyed_by as u64];
    let mut table = Vec::with_capacity(8 * (header.len() + 2 * spans.len() + slots.len()) + key_field.len());
    let spans = spans.iter().flat_map(|span| [span.start, span.end]);
    for number in header.into_iter().chain(spans).chain(slots.iter().copied()) {
        table.extend(number.to_le_bytes());
    }
    table.extend(key_field.as_bytes());
    table
}

impl<'a> Records<'a> {
    /// Where in a table the span of a record stands: its start, then its end.
    pub fn span_offset(row: u64) -> u64 {
        RECORDS_HEADER_BYTES as u64 + 16 * row
    }

    /// The JSON text of the record at a span whose bytes are `span`, by the header of the table.
    pub fn of_span<'s>(header: &[u8; RECORDS_HEADER_BYTES], span: &'s [u8]) -> Option<&'s [u8]> {
        record_text(keyed_by(header)?, span)
    }

    /// The records of `bytes`, the whole file, by the `table` that was made of it. A record that is
    /// no longer where the table says is one that does not exist.
    pub fn new(bytes: &'a [u8], table: &'a [u8]) -> Result<Records<'a>, ArtifactError> {
        Records::parse(bytes, table).ok_or(ArtifactError::DamagedTable)
    }

    fn parse(bytes: &'a [u8], table: &'a [u8]) -> Option<Records<'a>> {
        let (header, rest) = table.split_first_chunk::<RECORDS_HEADER_BYTES>()?;
        let [records, slots] = [0, 8].map(|at| number(&header[at..]));
        let keyed_by = keyed_by(header)?;
        let size = |count: u64, each| usize::try_from(count).ok()?.checked_mul(each);
        let (spans, rest) = rest.split_at_checked(size(records, 16)?)?;
        let (slots, key_field) = rest.split_at_checked(size(slots, 8)?)?;
        let key_field = str::from_utf8(key_field).ok()?;
        Some(Records { bytes, keyed_by, spans: spans.as_chunks().0, slots: slots.as_chunks().0, key_field })
    }

    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.spans.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The JSON text of a record; `None` past the last.
    pub fn row(&self, row: u64) -> Option<&'a [u8]> {
        record_text(self.keyed_by, self.span(row)?)
    }

    fn span(&self, row: u64) -> Option<&'a [u8]> {
        let span = self.spans.get(usize::try_from(row).ok()?)?;
        let [start, end] = [0, 8].map(|at| usize::try_from(number(&span[at..])).ok());
        self.bytes.get(start?..end?)
    }

    /// The JSON text of the record with this key.
    pub fn by_key(&self, key: &str) -> Option<&'a [u8]> {
        let hash = hash(key);
        probe(hash, self.slots.len())
            .map(|at| u64::from_le_bytes(self.slots[at]))
            .take_while(|&slot| slot != 0)
            .filter_map(|slot| slot_row(slot, hash))
            .filter_map(|row| self.span(row))
            .find(|span| key_of(self.keyed_by, span, self.key_field).as_deref() == Some(key))
            .and_then(|span| record_text(self.keyed_by, span))
    }
}

fn keyed_by(header: &[u8; RECORDS_HEADER_BYTES]) -> Option<KeyedBy> {
    match number(&header[16..]) {
        0 => Some(KeyedBy::Field),
        1 => Some(KeyedBy::Member),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
}

/// The key of the record at a span.
pub(super) fn key_of(keyed_by: KeyedBy, span: &[u8], key_field: &str) -> Option<String> {
    match keyed_by {
        KeyedBy::Field => record_key(span, key_field).ok().flatten(),
        KeyedBy::Member => serde_json::from_slice(&span[..member_key_end(span)?]).ok(),
    }
}

/// The record at a span.
fn record_of_member(span: &[u8]) -> Option<&[u8]> {
    let rest = span[member_key_end(span)?..].trim_ascii_start();
    Some(rest.strip_prefix(b":")?.trim_ascii_start())
}

fn record_text(keyed_by: KeyedBy, span: &[u8]) -> Option<&[u8]> {
    match keyed_by {
        KeyedBy::Field => Some(span),
        KeyedBy::Member => record_of_member(span),
    }
}

/// Where the string ends that `member` starts with.
fn member_key_end(member: &[u8]) -> Option<usize> {
    let mut escaped = true; // So that the first quote is not the last.
    let end = member.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    Some(end? + 1)
}

/// The hash slots for keys by their hashes and rows, at most half full, so that a search ends soon. `differ` is asked
/// about two rows whose keys look alike: that is an accident once in millions of keys, otherwise the same key.
pub(super) fn hash_slots<E>(
    keys: &[(u64, u64)],
    mut differ: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<Vec<u64>, E> {
    let mut slots = vec![0; keys.len() * 2];
    for &(hash, row) in keys {
        for at in probe(hash, slots.len()) {
            if slots[at] == 0 {
                slots[at] = slot(hash, row);
                break;
            }
            if let Some(other) = slot_row(slots[at], hash) {
                differ(other, row)?;
            }
        }
    }
    Ok(slots)
}

/// The hash of a key. SHA-256, so that no file can be made whose keys collide on purpose.
pub(super) fn hash(key: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = Digest::of(key.as_bytes()).0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The slots where a key may be, in the order of search.
fn probe(hash: u64, slots: usize) -> impl Iterator<Item = usize> {
    (0..slots as u64).map(move |step| ((hash % slots as u64 + step) % slots as u64) as usize)
}

/// A slot that says: the key with this hash is in this row.
fn slot(hash: u64, row: u64) -> u64 {
    hash >> ROW_BITS << ROW_BITS | (row + 1)
}

/// The row of a slot that is taken, unless its key must be another.
fn slot_row(slot: u64, hash: u64) -> Option<u64> {
    let row = slot & ((1 << ROW_BITS) - 1);
    if slot >> ROW_BITS == hash >> ROW_BITS { row.checked_sub(1) } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::artifact::index_jsonl;

    const TEXT: &[u8] =
        b"{\"id\": \"a\"}\r\n\n  {\"id\": 7, \"x\": {\"id\": \"no\"}}\n{\"x\": 1}\n\n{\"id\":\"\\u00e9\"}";

    fn table(text: &[u8]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        index_jsonl(&file, text.len() as u64, "id").unwrap().0
    }

    #[test]
    fn records_are_found_by_row_and_by_key() {
        let table = table(TEXT);
        let records = Records::new(TEXT, &table).unwrap();
        assert_eq!(records.len(), 4);
        assert_eq!(records.row(0), Some(&b"{\"id\": \"a\"}"[..]));
        assert_eq!(records.row(2), Some(&b"{\"x\": 1}"[..]));
        assert_eq!(records.row(3), Some(&b"{\"id\":\"\\u00e9\"}"[..]));
        assert_eq!(records.row(4), None);
        assert_eq!(records.row(u64::MAX), None);
        assert_eq!(records.by_key("a"), records.row(0));
        assert_eq!(records.by_key("7"), records.row(1));
        assert_eq!(records.by_key("\u{e9}"), records.row(3));
        assert_eq!(records.by_key("no"), None);
    }

    #[test]
    fn every_one_of_many_keys_is_found() {
        let text: String = (0..5000).map(|i| format!("{{\"id\":\"key {i}\"}}\n")).collect();
        let table = table(text.as_bytes());
        let records = Records::new(text.as_bytes(), &table).unwrap();
        for i in 0..5000 {
            let key = format!("key {i}");
            assert_eq!(records.by_key(&key), records.row(i), "{key}");
            assert!(records.row(i).is_some());
        }
        assert_eq!(records.by_key("key 5000"), None);
    }

    #[test]
    fn keys_whose_slots_look_alike_are_told_apart() {
        let ([a, b], slots) = ([hash("32"), hash("12646")], 4);
        assert_eq!((a >> ROW_BITS, a % slots), (b >> ROW_BITS, b % slots));
        let text = b"{\"id\": 32}\n{\"id\": 12646}\n";
        let table = table(text);
        let records = Records::new(text, &table).unwrap();
        assert_eq!(records.by_key("32"), records.row(0));
        assert_eq!(records.by_key("12646"), records.row(1));
        let other = b"{\"id\": 33}\n{\"id\": 12646}\n";
        assert_eq!(Records::new(other, &table).unwrap().by_key("32"), None);
    }

    #[test]
    fn a_search_passes_every_slot_once() {
        let mut passed: Vec<usize> = probe(u64::MAX, 7).collect();
        assert_eq!(passed[0], (u64::MAX % 7) as usize);
        passed.sort_unstable();
        assert_eq!(passed, [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_file_without_keys_has_rows_only() {
        let table = table(b"{}\n{}\n");
        let records = Records::new(b"{}\n{}\n", &table).unwrap();
        assert_eq!((records.len(), records.by_key("a")), (2, None));
        assert_eq!(records.row(1), Some(&b"{}"[..]));
    }

    #[test]
    fn a_file_that_shrank_has_fewer_records() {
        let table = table(TEXT);
        let records = Records::new(&TEXT[..20], &table).unwrap();
        assert_eq!(records.row(0), Some(&b"{\"id\": \"a\"}"[..]));
        assert_eq!(records.row(1), None);
        assert_eq!(records.by_key("7"), None);
    }

    #[test]
    fn a_table_that_is_cut_is_damaged() {
        let table = table(TEXT);
        assert!(matches!(Records::new(TEXT, &table[..40]), Err(ArtifactError::DamagedTable)));
        assert!(matches!(Records::new(TEXT, &[0xff; 64]), Err(ArtifactError::DamagedTable)));
    }

    proptest! {
        #[test]
        fn no_damage_makes_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in 0usize..200,
            row in any::<u64>(),
        ) {
            let mut table = table(TEXT);
            for (at, byte) in changes {
                let at = at.index(table.len());
                table[at] = byte;
            }
            for table in [&table[..], &table[..cut.min(table.len())]] {
                if let Ok(records) = Records::new(TEXT, table) {
                    for row in (0..8).chain([row]) {
                        prop_assert!(records.row(row).is_none_or(|line| line.len() <= TEXT.len()));
                    }
                    for key in ["a", "7", "no"] {
                        prop_assert!(records.by_key(key).is_none_or(|line| !line.is_empty()));
                    }
                }
            }
        }

        #[test]
        fn arbitrary_tables_do_not_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            for records in [0u64, 1, 2] {
                let table = [&records.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 8], &bytes].concat();
                if let Ok(records) = Records::new(TEXT, &table) {
                    prop_assert!(records.row(records.len()).is_none());
                    prop_assert!(records.by_key("no").is_none());
                }
            }
        }
    }
}
