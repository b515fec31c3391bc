//! How many workers fit: the arithmetic, in the words in which a person would write it down.

use super::machine::Rooms;
use crate::text;

/// What a worker takes of which nothing is known: a forked process that has not done anything large.
pub(crate) const WORKER_BYTES: u64 = 1 << 20;

/// The same of one with a Python process.
pub(crate) const PYTHON_BYTES: u64 = 8 << 20;

/// What the coordinator holds of each node.
const NODE_BYTES: u64 = 600;

/// What a run may take, and where the numbers come from.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    /// What can be had, and who says so.
    pub available: u64,
    pub limit: String,
    /// The part of that which the run may take.
    pub share: f64,
    /// Once, for all workers.
    pub artifacts: u64,
    pub coordinator: u64,
}

impl Budget {
    /// For a run of so many nodes, with a cache of this size.
    pub fn new(rooms: &Rooms, share: f64, artifacts: u64, (cache, nodes): (u64, usize)) -> Budget {
        Budget {
            available: rooms.available(),
            limit: rooms.tightest().name.clone(),
            share,
            artifacts,
            coordinator: cache + NODE_BYTES * nodes as u64,
        }
    }

    /// What all workers may hold for themselves.
    pub fn for_workers(&self) -> u64 {
        let part = (self.available as f64 * self.share) as u64;
        part.saturating_sub(self.artifacts + self.coordinator)
    }

    /// What one node may take if it runs alone.
    pub fn for_one(&self) -> u64 {
        self.available.saturating_sub(self.artifacts + self.coordinator)
    }

    /// How many workers fit that take so much each.
    pub fn fits(&self, each: u64) -> usize {
        (self.for_workers() / each.max(1)) as usize
    }

    /// The arithmetic, a line a step.
    pub fn lines(&self) -> [String; 4] {
        let part = (self.available as f64 * self.share) as u64;
        [
            format!("{:>10}  available ({})", text::bytes(self.available), self.limit),
            format!("{:>10}  of that, {:.0}%, for this run", text::bytes(part), self.share * 100.0),
            format!("{:>10}  artifacts, once for all workers", format!("- {}", text::bytes(self.artifacts))),
            format!("{:>10}  coordinator", format!("- {}", text::bytes(self.coordinator))),
        ]
    }

    /// Why not even one worker that takes so much fits.
    pub fn refusal(&self, each: u64) -> String {
        format!(
            "not even one worker fits:\n{}\n{:>10}  left for workers, and one takes {}\nfree memory, take smaller artifacts, or another --preset",
            self.lines().join("\n"),
            text::bytes(self.for_workers()),
            text::bytes(each)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_of_the_issue() {
        // 16 GiB free, 250 MB each if every worker has its own; a megabyte each if they share.
        let budget = Budget {
            available: 16 << 30,
            limit: "the machine".into(),
            share: 0.8,
            artifacts: 250 << 20,
            coordinator: 0,
        };
        assert_eq!(Budget { artifacts: 0, ..budget.clone() }.fits(250 << 20), 52);
        assert_eq!(budget.fits(1 << 20), 12857);
        let none = Budget { available: 300 << 20, ..budget };
        assert_eq!((none.fits(1 << 20), none.for_one()), (0, 50 << 20));
        assert!(none.refusal(1 << 20).contains("- 250.0 MiB  artifacts, once for all workers"));
    }
}
