//! Which bytes of the arena are free: arithmetic only, no memory. Blocks up to half a segment are cut
//! from an open segment, and freed ones are reused for blocks of the same size class; larger blocks are
//! runs of whole segments. A segment in which nothing lives is as good as new, whatever it was cut into.

use std::collections::BTreeSet;

use super::{HEADER_BYTES, SEGMENT_BYTES};

/// Larger blocks get segments of their own.
const SMALL_MAX_BYTES: u64 = SEGMENT_BYTES / 2;

/// Sizes up to this are classes of their own, 8 bytes apart; above, there are 8 classes to a doubling.
const EXACT_MAX_BYTES: u64 = 1024;

#[derive(Default)]
struct Segment {
    live_blocks: u32,
    /// Counts how often it became empty: what was freed before that is no block any more.
    generation: u32,
}

struct Freed {
    at: u64,
    generation: u32,
}

/// The free and the living blocks.
pub(super) struct Blocks {
    segments: Vec<Segment>,
    empty: BTreeSet<usize>,
    /// The segment that small blocks are cut from, and the rest of it.
    open: usize,
    next: u64,
    end: u64,
    freed: Vec<Vec<Freed>>,
    live_bytes: u64,
}

impl Blocks {
    /// One segment, of which the header is taken.
    pub(super) fn new() -> Blocks {
        Blocks {
            // The header is a block that is never freed.
            segments: vec![Segment { live_blocks: 1, generation: 0 }],
            empty: BTreeSet::new(),
            open: 0,
            next: HEADER_BYTES,
            end: SEGMENT_BYTES,
            freed: Vec::new(),
            live_bytes: 0,
        }
    }

    /// The length of the file that holds all segments.
    pub(super) fn end_bytes(&self) -> u64 {
        self.segments.len() as u64 * SEGMENT_BYTES
    }

    /// The bytes of all blocks that live.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Segments that a block of `len` bytes needs when there is no room for it.
    pub(super) fn segments_for(len: u64) -> u64 {
        len.div_ceil(SEGMENT_BYTES)
    }

    /// Adds new segments.
    pub(super) fn add(&mut self, count: u64) {
        for _ in 0..count {
            self.empty.insert(self.segments.len());
            self.segments.push(Segment::default());
        }
    }

    /// A block of at least `len` bytes; `None` when segments must be added for it.
    pub(super) fn take(&mut self, len: u64) -> Option<u64> {
        let (class, bytes) = size_class(len);
        let at = if bytes > SMALL_MAX_BYTES { self.take_run(len)? } else { self.take_small(class, bytes)? };
        self.segments[segment_of(at)].live_blocks += 1;
        self.live_bytes += if bytes > SMALL_MAX_BYTES { len } else { bytes };
        Some(at)
    }

    fn take_small(&mut self, class: usize, bytes: u64) -> Option<u64> {
        while let Some(freed) = self.freed.get_mut(class).and_then(Vec::pop) {
            if self.segments[segment_of(freed.at)].generation == freed.generation {
                return Some(freed.at);
            }
        }
        if self.next + bytes > self.end {
            let open = self.empty.pop_first()?;
            self.open = open;
            self.next = open as u64 * SEGMENT_BYTES;
            self.end = self.next + SEGMENT_BYTES;
        }
        let at = self.next;
        self.next += bytes;
        Some(at)
    }

    fn take_run(&mut self, len: u64) -> Option<u64> {
        let count = Blocks::segments_for(len) as usize;
        let mut run = 0..0;
        for &segment in &self.empty {
            run = if segment == run.end { run.start..segment + 1 } else { segment..segment + 1 };
            if run.len() == count {
                break;
            }
        }
        if run.len() < count {
            return None;
        }
        run.clone().for_each(|segment| {
            self.empty.remove(&segment);
        });
        Some(run.start as u64 * SEGMENT_BYTES)
    }

    /// Takes back a block that `take(len)` gave.
    pub(super) fn give_back(&mut self, at: u64, len: u64) {
        let (class, bytes) = size_class(len);
        let index = segment_of(at);
        let segment = &mut self.segments[index];
        segment.live_blocks = segment.live_blocks.checked_sub(1).expect("BUG: a block freed twice");
        if bytes > SMALL_MAX_BYTES {
            self.live_bytes -= len;
            self.empty.extend(index..index + Blocks::segments_for(len) as usize);
            return;
        }
        self.live_bytes -= bytes;
        if segment.live_blocks > 0 {
            if self.freed.len() <= class {
                self.freed.resize_with(class + 1, Vec::new);
            }
            self.freed[class].push(Freed { at, generation: segment.generation });
            return;
        }
        segment.generation = segment.generation.wrapping_add(1);
        if index == self.open {
            self.next = index as u64 * SEGMENT_BYTES;
        } else {
            self.empty.insert(index);
        }
    }
}

fn segment_of(at: u64) -> usize {
    (at / SEGMENT_BYTES) as usize
}

/// The class of a block and the bytes it takes.
fn size_class(len: u64) -> (usize, u64) {
    let len = len.max(1);
    if len <= EXACT_MAX_BYTES {
        let eights = len.div_ceil(8);
        return (eights as usize - 1, eights * 8);
    }
    let step = 1 << ((len - 1).ilog2() - 3);
    let steps = len.div_ceil(step);
    let doublings = (step * 8 / EXACT_MAX_BYTES).ilog2() as u64;
    ((EXACT_MAX_BYTES / 8 + doublings * 8 + steps - 9) as usize, steps * step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_blocks_and_waste_an_eighth_at_most() {
        let mut last = (0, 0);
        for len in 1..=SMALL_MAX_BYTES {
            let class = size_class(len);
            assert!(class.1 >= len && class.1.is_multiple_of(8), "{len}: {class:?}");
            assert!(class.1 - len <= (len / 8).max(7), "{len}: {class:?}");
            assert!(class == last || (class.0 == last.0 + 1 || len == 1) && class.1 > last.1, "{len}");
            last = class;
        }
        assert_eq!(size_class(SMALL_MAX_BYTES).1, SMALL_MAX_BYTES);
    }

    #[test]
    fn a_freed_block_is_reused_for_its_size_only() {
        let mut blocks = Blocks::new();
        let (a, b) = (blocks.take(40).unwrap(), blocks.take(48).unwrap());
        blocks.give_back(a, 40);
        assert!(blocks.take(48).unwrap() > b);
        assert_eq!(blocks.take(33).unwrap(), a);
    }

    #[test]
    fn an_empty_segment_serves_other_sizes() {
        let mut blocks = Blocks::new();
        blocks.add(1);
        let first: Vec<u64> = std::iter::from_fn(|| blocks.take(4096)).collect();
        let (first, second) = first.split_at(255);
        assert_eq!(second.len(), 256);
        second.iter().for_each(|at| blocks.give_back(*at, 4096));
        assert_eq!(blocks.take(100).unwrap(), SEGMENT_BYTES);
        assert_eq!(blocks.live_bytes(), first.len() as u64 * 4096 + 104);
        let again: Vec<u64> = std::iter::from_fn(|| blocks.take(4096)).collect();
        assert_eq!(again.len(), 255, "freed blocks of the former life are not handed out twice");
    }

    #[test]
    fn large_blocks_are_runs_of_segments() {
        let mut blocks = Blocks::new();
        assert_eq!(blocks.take(3 * SEGMENT_BYTES), None);
        blocks.add(4);
        assert_eq!(blocks.take(3 * SEGMENT_BYTES - 1), Some(SEGMENT_BYTES));
        assert_eq!(blocks.take(2 * SEGMENT_BYTES), None);
        blocks.give_back(SEGMENT_BYTES, 3 * SEGMENT_BYTES - 1);
        assert_eq!(blocks.live_bytes(), 0);
        assert_eq!(blocks.take(4 * SEGMENT_BYTES), Some(SEGMENT_BYTES));
    }
}
