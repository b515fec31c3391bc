//! Everything that a reader can see of a writer that publishes, replaces and recycles blocks, if processors and compilers
//! do the most that the memory model lets them.
//!
//! The steps are those of the arena: back memory and publish its length; write a block; publish the word that leads to it;
//! replace it by a second one; recycle the first when the reader that may see it is done. The model is that of C++ and Rust,
//! for one writer: a load may return any store that is not older than what the reader has seen of this word; a load that
//! looks (Acquire), and finds a word that was published (Release), has seen all that was stored before. All choices are
//! gone through.
//!
//! (`loom` has types of its own for atomics; ours lie in memory that processes share, and readers hand out plain slices of
//! it. It could only look at a copy of this, too. What ties this copy to the code are the two orderings, which are the
//! code's own.)

use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};

use crate::mapping::{LOOK, PUBLISH};

/// Words of memory: how much is backed, the root, and three blocks of two words, of which the third is where the first was.
const BACKED: usize = 0;
const ROOT: usize = 1;
const A: usize = 2;
const B: usize = 4;
const WORDS: usize = 6;

#[derive(Clone, Copy)]
enum Step {
    Store(usize, u64, Ordering),
    /// Waits until the reader is done, as whoever recycles a block does.
    AwaitReader,
}
use Step::{AwaitReader, Store};

/// Who can be wrong.
#[derive(Clone, Copy)]
struct Rules {
    publish: Ordering,
    look: Ordering,
    recycles_early: bool,
}

/// What the writer has stored so far: each store is newer than those before it.
#[derive(Clone, Default)]
struct Log(Vec<(usize, u64, Ordering)>);

/// A reader: how far it has come, what it holds, and what it can no longer unsee.
#[derive(Clone, Default)]
struct Reader {
    at: usize,
    root: u64,
    backed: u64,
    /// All stores before this one are seen.
    seen: usize,
    /// The newest store that was seen of each word.
    of_word: [usize; WORDS],
}

fn writer(rules: Rules) -> Vec<Step> {
    let mut steps = vec![
        // One block's worth of memory, the block, the way to it.
        Store(BACKED, 4, rules.publish),
        Store(A, 11, Relaxed),
        Store(A + 1, 12, Relaxed),
        Store(ROOT, A as u64, rules.publish),
        // More memory, another block in its place.
        Store(BACKED, 6, rules.publish),
        Store(B, 21, Relaxed),
        Store(B + 1, 22, Relaxed),
        Store(ROOT, B as u64, rules.publish),
    ];
    if !rules.recycles_early {
        steps.push(AwaitReader);
    }
    // The first block's memory serves another, which nobody was led to yet.
    steps.extend([Store(A, 31, Relaxed), Store(A + 1, 32, Relaxed)]);
    steps
}

/// Goes through all that can happen from here on; how often the reader came to its end.
fn explore(rules: Rules, steps: &[Step], log: &Log, reader: &Reader) -> Result<u64, String> {
    const DONE: usize = 4;
    let mut ends = 0;
    match steps.split_first() {
        Some((Store(word, value, order), rest)) => {
            let mut log = log.clone();
            log.0.push((*word, *value, *order));
            ends += explore(rules, rest, &log, reader)?;
        }
        Some((AwaitReader, rest)) if reader.at == DONE => ends += explore(rules, rest, log, reader)?,
        Some((AwaitReader, _)) | None => {}
    }
    let (word, order) = match reader.at {
        0 => (ROOT, rules.look),
        1 => (BACKED, rules.look),
        2 => (reader.root as usize, Relaxed),
        3 => (reader.root as usize + 1, Relaxed),
        _ => return Ok(ends + 1),
    };
    for (value, reader) in loads(log, reader, word, order) {
        let mut reader = Reader { at: reader.at + 1, ..reader };
        match reader.at {
            1 if value == 0 => reader.at = DONE,
            1 => reader.root = value,
            2 if reader.root + 2 > value => return Err(format!("block {} is not backed", reader.root)),
            2 => reader.backed = value,
            _ => {
                // 11 and 12 in the first block, 21 and 22 in the second.
                let expected = 5 * reader.root + reader.at as u64 - 2;
                if value != expected {
                    return Err(format!("{value} for {expected} in block {}", reader.root));
                }
            }
        }
        ends += explore(rules, steps, log, &reader)?;
    }
    Ok(ends)
}

/// Everything that a load can return, and what the reader has seen then.
fn loads(log: &Log, reader: &Reader, word: usize, order: Ordering) -> Vec<(u64, Reader)> {
    let newest_seen = log.0[..reader.seen].iter().rposition(|store| store.0 == word).map_or(0, |at| at + 1);
    let oldest = newest_seen.max(reader.of_word[word]);
    let mut found = Vec::new();
    // Numbers of stores, from 1; 0 is what was there at first.
    for number in oldest..=log.0.len() {
        let (value, stored) = match number.checked_sub(1).map(|at| log.0[at]) {
            None => (0, Relaxed),
            Some((of, value, stored)) if of == word => (value, stored),
            Some(_) => continue,
        };
        let mut reader = reader.clone();
        reader.of_word[word] = number;
        if order == Acquire && stored == Release {
            reader.seen = reader.seen.max(number);
        }
        found.push((value, reader));
    }
    found
}

fn all_of_it(rules: Rules) -> Result<u64, String> {
    explore(rules, &writer(rules), &Log::default(), &Reader::default())
}

#[test]
fn whoever_is_led_to_a_block_finds_it_whole_and_as_it_was_written() {
    let ours = Rules { publish: PUBLISH, look: LOOK, recycles_early: false };
    let ends = all_of_it(ours).unwrap();
    assert!(ends > 100, "{ends} ways");
    // Each of these is needed, and this finds out.
    for wrong in [
        Rules { publish: Relaxed, ..ours },
        Rules { look: Relaxed, ..ours },
        Rules { recycles_early: true, ..ours },
    ] {
        all_of_it(wrong).unwrap_err();
    }
}
