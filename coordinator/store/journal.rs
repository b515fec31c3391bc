//! What became of each node of a run: `runs/<id>/journal`, appended after the results it speaks of are
//! durable, so that what it reports is never run again.
//!
//! ```text
//!   length   u32, little endian     of the payload
//!   check    8 bytes                the first of the payload's SHA-256
//!   payload                         entries, one after the other
//! ```
//!
//! A run that is killed leaves a torn last frame: readers stop before it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bincode::{Decode, Encode, config};
use forkyard_shared::digest::Digest;

/// More than any entry holds.
const ENTRY_MAX_BYTES: usize = 256 << 20;

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Ran,
    Cached,
    Failed,
    TimedOut,
    Skipped,
    Blocked,
    Cancelled,
}

impl Outcome {
    /// Its name in events and lists.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Ran => "ran",
            Outcome::Cached => "cached",
            Outcome::Failed => "failed",
            Outcome::TimedOut => "timed_out",
            Outcome::Skipped => "skipped",
            Outcome::Blocked => "blocked",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// Whether the node has a result.
    pub fn is_done(self) -> bool {
        matches!(self, Outcome::Ran | Outcome::Cached)
    }
}

/// What became of one node. A run refers to names; who reads a journal has them for himself.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct JournalEntry<Name = String> {
    /// The node's id in the manifest.
    pub node: Name,
    pub outcome: Outcome,
    pub attempt: u32,
    /// Its node key, if it had one.
    pub key: Option<Digest>,
    pub duration_us: u64,
    /// Why it failed or was blocked.
    pub error: Option<String>,
    /// What its command wrote to stderr.
    pub log: Vec<u8>,
}

/// Appends an entry to a payload.
pub(super) fn encode(entry: &impl Encode, payload: &mut Vec<u8>) {
    bincode::encode_into_std_write(entry, payload, config::standard()).expect("a vector takes everything");
}

/// Appends a frame to a journal, or nothing.
pub(super) fn append(file: &mut File, payload: &[u8]) -> io::Result<()> {
    let mut head = [0; 12];
    head[..4].copy_from_slice(&u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes());
    head[4..].copy_from_slice(&Digest::of(payload).0[..8]);
    let before = file.metadata()?.len();
    // Readers would stop at a torn frame and never see those after it.
    let written = file.write_all(&head).and_then(|()| file.write_all(payload));
    written.inspect_err(|_| drop(file.set_len(before)))
}

/// Hands the entries of a journal to `each`, oldest first; a later one of the same node replaces an
/// earlier one. Whether all of it is sound: a frame that does not pass its check is left out, and so is a torn end.
pub(crate) fn read_journal(path: &Path, each: impl FnMut(JournalEntry)) -> io::Result<bool> {
    read_entries(path, each)
}

/// Hands the entries of a file of frames to `each`, oldest first; whether all of it is sound.
pub(super) fn read_entries<T: Decode<()>>(path: &Path, mut each: impl FnMut(T)) -> io::Result<bool> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (mut rest, mut sound) = (bytes.as_slice(), true);
    while let Some((payload, passes, after)) = frame(rest) {
        sound &= passes;
        let mut entries = if passes { payload } else { &[] };
        // What an entry claims to hold is not believed without limit.
        let config = config::standard().with_limit::<ENTRY_MAX_BYTES>();
        while let Ok((entry, used)) = bincode::decode_from_slice(entries, config) {
            each(entry);
            entries = &entries[used..];
        }
        rest = after;
    }
    Ok(sound && rest.is_empty())
}

/// The first frame, whether it passes its check, and what comes after it.
fn frame(bytes: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let (payload, after) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((payload, Digest::of(payload).0[..8] == *check, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str) -> JournalEntry {
        let (outcome, error) = (Outcome::Failed, Some("because".into()));
        JournalEntry {
            node: node.into(),
            outcome,
            attempt: 2,
            key: None,
            duration_us: 5,
            error,
            log: b"log".to_vec(),
        }
    }

    #[test]
    fn an_entry_that_claims_to_be_endless_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut payload = Vec::new();
        encode(&entry("a"), &mut payload);
        // A name of 2^64 - 1 bytes, in a frame that passes its check.
        payload.extend([253, 255, 255, 255, 255, 255, 255, 255, 255]);
        append(&mut File::create(&path).unwrap(), &payload).unwrap();
        let mut read = 0;
        read_journal(&path, |_| read += 1).unwrap();
        assert_eq!(read, 1);
    }

    #[test]
    fn a_torn_tail_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut file = File::create(&path).unwrap();
        for names in [&["a", "b"][..], &["c"]] {
            let mut payload = Vec::new();
            names.iter().for_each(|name| encode(&entry(name), &mut payload));
            append(&mut file, &payload).unwrap();
        }
        let whole = file.metadata().unwrap().len();
        for (len, expected) in [(whole, "abc"), (whole - 1, "ab"), (3, "")] {
            file.set_len(len).unwrap();
            let mut read = String::new();
            let sound = read_journal(&path, |entry| read.push_str(&entry.node)).unwrap();
            assert_eq!((read.as_str(), sound), (expected, len == whole));
        }
    }
}
