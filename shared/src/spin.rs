//! Looking for something for a moment before sleeping over it: to wake a sleeper costs 15 to 60 us, because its core
//! sleeps too; to look costs that core.

use std::time::{Duration, Instant};

/// How long a worker looks for its next batch before it sleeps, and its coordinator for the next message: this much is
/// worth it while they follow each other closely.
pub const SPIN: Duration = Duration::from_micros(30);

/// Looks at first, some microseconds: whoever has the answer works at it on another core.
const LOOKS_FIRST: u32 = 64;

/// Looks after that, between two turns in which whoever has the answer may have this core.
const LOOKS: u32 = 8;

/// Looks for at most so long, and once in any case; what was found.
pub fn look<T>(limit: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    let mut looks = if limit.is_zero() { 1 } else { LOOKS_FIRST };
    loop {
        for _ in 0..looks {
            if let Some(found) = find() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::yield_now();
        looks = LOOKS;
    }
}
