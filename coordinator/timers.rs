//! What is to be looked at later. Knows no clock: the caller says what time it is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};

/// Why to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A task of this worker may have overrun its time.
    Timeout(WorkerId),
    /// A node's next attempt is due.
    Retry(NodeId),
    /// A worker has been idle while tasks wait behind another.
    Share,
    /// A gate may let somebody through.
    Gate(usize),
    /// The sample has taken long enough.
    SampleEnd,
    /// Workers are to be looked at.
    Memory,
    /// Progress is to be shown.
    Tick,
    /// Nothing new is to be started from now on.
    End,
}

/// Timers by time.
#[derive(Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Instant, Timer)>>);

impl Timers {
    pub fn set(&mut self, at: Instant, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    /// The next timer that is due.
    pub fn due(&mut self, now: Instant) -> Option<Timer> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at <= now { self.0.pop().map(|Reverse((_, timer))| timer) } else { None }
    }

    /// How many there are, but for those of single nodes.
    #[cfg(any(test, fuzzing))]
    pub fn count(&self) -> usize {
        self.0.iter().filter(|Reverse((_, timer))| !matches!(timer, Timer::Retry(_))).count()
    }

    /// How long nothing is due.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        self.0.peek().map(|Reverse((at, _))| at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_before() {
        let (start, ms) = (Instant::now(), Duration::from_millis(1));
        let mut timers = Timers::default();
        timers.set(start + 5 * ms, Timer::Tick);
        timers.set(start + 2 * ms, Timer::Share);
        assert_eq!(timers.wait(start), Some(2 * ms));
        assert_eq!(timers.due(start + ms), None);
        assert_eq!(timers.due(start + 9 * ms), Some(Timer::Share));
        assert_eq!(timers.due(start + 9 * ms), Some(Timer::Tick));
        assert_eq!(timers.wait(start), None);
    }
}
