//! A stored result, as bytes. The format is part of the store's version.
//!
//! ```text
//!   0   version << 4 | place     version 1; place 0 inline, 1 row, 2 file; + 4: there is more than the value
//!   1   kind                     0 JSON, 1 bytes, 2 text
//!   2   run, duration in us, length in bytes            three LEB128 numbers
//!       with + 4: the length of what more there is, and that
//!       inline: the bytes  |  row: LEB128 row, 32-byte digest  |  file: 32-byte digest
//!  -8   check: the first 8 bytes of SHA-256(key, everything above)
//! ```
//!
//! The check makes a damaged row a miss and never a wrong hit; the digest of an inline value is that of
//! its bytes.

use bincode::{Decode, Encode, config};
use forkyard_shared::digest::{Digest, Hasher};
use forkyard_shared::protocol::Writes;
use forkyard_shared::value::{Kind, NULL_DIGEST};

/// A stored result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub kind: Kind,
    pub digest: Digest,
    pub place: Place,
    /// Length of the value in bytes.
    pub len: u64,
    /// How long it took to compute.
    pub duration_us: u64,
    /// The run that computed it.
    pub run: u64,
    /// What the node did besides: see [`Extra`].
    pub extra: Vec<u8>,
}

/// What belongs to a result besides its value.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(crate) struct Extra {
    /// What the node wrote to the state.
    pub writes: Writes,
    /// Whether its value is nodes.
    pub generates: bool,
    /// Of the record of a race: the key of who won. It is kept for as long as that one is.
    pub winner: Option<Digest>,
}

impl Extra {
    /// Its bytes; none if there is nothing.
    pub fn encode(&self) -> Vec<u8> {
        if *self == Extra::default() {
            return Vec::new();
        }
        bincode::encode_to_vec(self, config::standard()).expect("BUG: a vector takes everything")
    }

    /// Reads what [`Extra::encode`] wrote; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Extra> {
        if bytes.is_empty() {
            return Some(Extra::default());
        }
        let config = config::standard().with_limit::<EXTRA_MAX_BYTES>();
        bincode::decode_from_slice(bytes, config).ok().map(|(extra, _)| extra)
    }
}

/// Where the bytes of a value are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// With the record itself.
    Inline(Vec<u8>),
    /// In rows of the database, from this one on.
    Row(i64),
    /// In a file under `blobs/`.
    File,
}

/// More than a node may write to the state.
const EXTRA_MAX_BYTES: usize = 16 << 20;

const VERSION: u8 = 1;
const MORE: u8 = 4;
const CHECK_BYTES: usize = 8;

impl Record {
    /// That of `null`, as far as a run that finds it stored cares.
    pub fn null() -> Record {
        let (digest, place) = (NULL_DIGEST, Place::Inline(b"null".to_vec()));
        Record { kind: Kind::Json, digest, place, len: 4, duration_us: 0, run: 0, extra: Vec::new() }
    }

    /// Whether it is `null` and nothing more.
    pub fn is_null(&self) -> bool {
        let inline = matches!(self.place, Place::Inline(_));
        inline && self.digest == NULL_DIGEST && self.kind == Kind::Json && self.extra.is_empty()
    }

    /// Its bytes under this key.
    pub fn encode(&self, key: Digest) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let place = match self.place {
            Place::Inline(_) => 0,
            Place::Row(_) => 1,
            Place::File => 2,
        };
        let more = if self.extra.is_empty() { 0 } else { MORE };
        out.extend([VERSION << 4 | more | place, self.kind.code()]);
        for number in [self.run, self.duration_us, self.len] {
            put_number(&mut out, number);
        }
        if !self.extra.is_empty() {
            put_number(&mut out, self.extra.len() as u64);
            out.extend(&self.extra);
        }
        match &self.place {
            Place::Inline(bytes) => out.extend(bytes),
            Place::Row(row) => {
                put_number(&mut out, *row as u64);
                out.extend(self.digest.0);
            }
            Place::File => out.extend(self.digest.0),
        }
        let check = check(key, &out);
        out.extend(check);
        out
    }

    /// These bytes with the check that they are to pass.
    #[cfg(any(test, fuzzing))]
    pub fn sealed(key: Digest, body: &[u8]) -> Vec<u8> {
        [body, &check(key, body)].concat()
    }

    /// Reads what [`Record::encode`] wrote for this key; `None` when it is damaged.
    pub fn decode(key: Digest, bytes: &[u8]) -> Option<Record> {
        let (body, stored) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if check(key, body) != stored {
            return None;
        }
        let (&[head, kind], mut rest) = body.split_first_chunk::<2>()?;
        if head >> 4 != VERSION {
            return None;
        }
        let kind = Kind::from_code(kind)?;
        let mut number = || take_number(&mut rest);
        let (run, duration_us, len) = (number()?, number()?, number()?);
        let mut extra = Vec::new();
        if head & MORE != 0 {
            let len = usize::try_from(take_number(&mut rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(len)?;
            (extra, rest) = (bytes.to_vec(), after);
        }
        let (place, digest) = match head & 3 {
            0 if rest == b"null" => (Place::Inline(rest.to_vec()), NULL_DIGEST),
            0 => (Place::Inline(rest.to_vec()), Digest::of(rest)),
            1 => (Place::Row(take_number(&mut rest)? as i64), Digest(rest.try_into().ok()?)),
            2 => (Place::File, Digest(rest.try_into().ok()?)),
            _ => return None,
        };
        Some(Record { kind, digest, place, len, duration_us, run, extra })
    }
}

fn check(key: Digest, body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Hasher::new();
    hasher.update(&key.0);
    hasher.update(body);
    *hasher.finish().0.first_chunk().expect("a digest is longer")
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(place: Place, digest: Digest, len: u64) -> Record {
        Record { kind: Kind::Json, digest, place, len, duration_us: 300, run: 7, extra: Vec::new() }
    }

    #[test]
    fn every_place_round_trips() {
        let key = Digest::of(b"key");
        for record in [
            record(Place::Inline(b"null".to_vec()), NULL_DIGEST, 4),
            record(Place::Inline(b"[1,2]".to_vec()), Digest::of(b"[1,2]"), 5),
            record(Place::Row(123_456), Digest::of(b"row"), 1 << 14),
            record(Place::File, Digest::of(b"file"), u64::MAX),
            Record { extra: vec![7; 300], ..record(Place::Row(5), Digest::of(b"row"), 9) },
        ] {
            assert_eq!(Record::decode(key, &record.encode(key)), Some(record));
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_a_miss(at in 0usize..1000, bit in 0u8..8) {
            let key = Digest::of(b"key");
            let mut bytes = record(Place::Row(9), Digest::of(b"x"), 40).encode(key);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Record::decode(key, &bytes), None);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            Record::decode(Digest::of(b"key"), &bytes);
        }
    }
}
