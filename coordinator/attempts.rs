//! How often nodes have gone wrong, and whether they are tried again. Errors, timeouts and deaths of workers are
//! counted each on their own. Knows no clock and no node's meaning.

use std::collections::HashMap;
use std::time::Duration;

use forkyard_shared::ids::NodeId;

use crate::plan::Retry;

/// How an attempt went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The op returned an error.
    Error,
    /// The worker was killed because the task took too long.
    Timeout,
    /// The worker died.
    Crash,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again after this long.
    Again(Duration),
    /// Give up.
    Fail,
}

#[derive(Clone, Copy, Default)]
struct Tries {
    errors: u32,
    timeouts: u32,
    crashes: u32,
    /// How often it was killed because memory was short.
    memory: u32,
    /// How often it asked to be run later.
    waits: u32,
}

/// A node may ask so often to be run later.
pub(crate) const LATER_MAX: u32 = 100;

/// What has gone wrong so far; most nodes are not in here.
#[derive(Default)]
pub(crate) struct Attempts {
    tries: HashMap<NodeId, Tries>,
}

impl Attempts {
    /// An attempt went wrong: whether there is another.
    pub fn judge(&mut self, node: NodeId, trouble: Trouble, retry: &Retry, max_crashes: u32) -> Verdict {
        let tries = self.tries.entry(node).or_default();
        let again = match trouble {
            Trouble::Crash => {
                tries.crashes += 1;
                return if tries.crashes < max_crashes {
                    Verdict::Again(Duration::ZERO)
                } else {
                    Verdict::Fail
                };
            }
            Trouble::Error => {
                tries.errors += 1;
                retry.on_error
            }
            Trouble::Timeout => {
                tries.timeouts += 1;
                retry.on_timeout
            }
        };
        let failed = tries.errors + tries.timeouts;
        if !again || failed >= retry.attempts {
            return Verdict::Fail;
        }
        // Doubled each time, up to a minute or what the user asked for.
        let longest = retry.backoff.max(Duration::from_secs(60));
        let wait = (retry.backoff * 2u32.saturating_pow(failed - 1)).min(longest);
        Verdict::Again(wait.mul_f64(1.0 + retry.jitter * chance(node, failed)))
    }

    /// The node asks to be run later, which is no failure: whether it may.
    pub fn may_wait(&mut self, node: NodeId) -> bool {
        let tries = self.tries.entry(node).or_default();
        tries.waits += 1;
        tries.waits <= LATER_MAX
    }

    /// The node was killed for no fault of its own.
    pub fn note_memory(&mut self, node: NodeId) {
        self.tries.entry(node).or_default().memory += 1;
    }

    /// The node is settled.
    pub fn forget(&mut self, node: NodeId) {
        if !self.tries.is_empty() {
            self.tries.remove(&node);
        }
    }

    /// The number of the attempt that runs or comes next, from 1.
    pub fn number(&self, node: NodeId) -> u32 {
        self.tries
            .get(&node)
            .map_or(1, |tries| 1 + tries.errors + tries.timeouts + tries.crashes + tries.memory + tries.waits)
    }

    /// How often the node has killed its worker.
    pub fn crashes(&self, node: NodeId) -> u32 {
        self.tries.get(&node).map_or(0, |tries| tries.crashes)
    }
}

/// A number from 0 up to 1 that differs from node to node and from attempt to attempt: those that failed together
/// do not come back together. (The finisher of MurmurHash3 mixes well enough for that.)
fn chance(node: NodeId, attempt: u32) -> f64 {
    let mut mixed = u64::from(node.0) << 32 | u64::from(attempt);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        mixed = (mixed ^ mixed >> 33).wrapping_mul(factor);
    }
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_backoff() {
        let mut attempts = Attempts::default();
        let (node, ms) = (NodeId(0), Duration::from_millis);
        let retry = Retry { attempts: 4, backoff: ms(100), jitter: 0.0, on_error: true, on_timeout: true };
        let mut judge = |trouble| attempts.judge(node, trouble, &retry, 3);
        assert_eq!(judge(Trouble::Error), Verdict::Again(ms(100)));
        assert_eq!(judge(Trouble::Timeout), Verdict::Again(ms(200)));
        // A crash costs no attempt, and there is nothing to wait for.
        assert_eq!(judge(Trouble::Crash), Verdict::Again(Duration::ZERO));
        assert_eq!(judge(Trouble::Error), Verdict::Again(ms(400)));
        assert_eq!(judge(Trouble::Error), Verdict::Fail);
    }

    #[test]
    fn backoff_has_an_end() {
        let mut attempts = Attempts::default();
        let mut last = |backoff: Duration| {
            let retry = Retry { attempts: 1000, backoff, jitter: 0.0, on_error: true, on_timeout: true };
            let judged = (0..40).map(|_| attempts.judge(NodeId(0), Trouble::Error, &retry, 3));
            judged.last().expect("forty of them")
        };
        assert_eq!(last(Duration::from_secs(1)), Verdict::Again(Duration::from_secs(60)));
        assert_eq!(
            last(Duration::from_secs(3600)),
            Verdict::Again(Duration::from_secs(3600)),
            "as the user asked"
        );
    }

    #[test]
    fn crashes_are_counted_on_their_own_and_only_named_troubles_are_retried() {
        let mut attempts = Attempts::default();
        let once = Retry::default();
        let judged = [(); 3].map(|()| attempts.judge(NodeId(0), Trouble::Crash, &once, 3));
        assert_eq!(judged, [Verdict::Again(Duration::ZERO), Verdict::Again(Duration::ZERO), Verdict::Fail]);
        let on_timeout = Retry { attempts: 9, on_error: false, ..Retry::default() };
        assert_eq!(
            attempts.judge(NodeId(1), Trouble::Timeout, &on_timeout, 3),
            Verdict::Again(Duration::ZERO)
        );
        assert_eq!(attempts.judge(NodeId(1), Trouble::Error, &on_timeout, 3), Verdict::Fail);
        assert_eq!(attempts.number(NodeId(1)), 3);
    }
}
