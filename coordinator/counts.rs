//! How many nodes of a run ended in which way.

use crate::store::Outcome;

/// Outcomes by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub ran: usize,
    pub cached: usize,
    pub failed: usize,
    pub timed_out: usize,
    pub blocked: usize,
    pub cancelled: usize,
    pub skipped: usize,
    /// How many of those that did not succeed need not have.
    pub excused: usize,
    /// How many of those failed by themselves.
    pub excused_failures: usize,
}

impl Counts {
    pub fn of(&mut self, outcome: Outcome) -> &mut usize {
        match outcome {
            Outcome::Ran => &mut self.ran,
            Outcome::Cached => &mut self.cached,
            Outcome::Failed => &mut self.failed,
            Outcome::TimedOut => &mut self.timed_out,
            Outcome::Blocked => &mut self.blocked,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Skipped => &mut self.skipped,
        }
    }

    /// Nodes that are settled.
    pub fn settled(&self) -> usize {
        self.ran + self.cached + self.failed + self.timed_out + self.blocked + self.cancelled + self.skipped
    }

    /// Nodes that failed by themselves, and that somebody wanted to succeed.
    pub fn failures(&self) -> usize {
        self.failed + self.timed_out - self.excused_failures
    }
}
