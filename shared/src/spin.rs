//! Looking for something for a moment before sleeping over it: to wake a sleeper costs 15 to 60 us, because its core
//! sleeps too; to look costs that core.

use std::time::{Duration, Instant};

/// How long a worker looks for its next batch before it sleeps, and its coordinator for the next message: this much is
/// worth it while they follow each other closely.
pub const SPIN: Duration = Duration::from_micros(30);

/// Looks between two turns in which whoever has the answer may have this core, and the clock is read: some hundred
/// nanoseconds.
const LOOKS: u32 = 8;

/// Looks for at most so long; what was found.
pub fn look<T>(limit: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if let Some(found) = find() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return None;
        }
        std::thread::yield_now();
    }
}
