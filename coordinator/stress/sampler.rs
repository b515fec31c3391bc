//! What processes hold while a run goes on, looked at by a thread of its own.

use std::fs;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forkyard_shared::sys::trim_heap;

use crate::memory::Machine;
use crate::threads;

/// Between two looks; twice that each time there are too many.
const EVERY: Duration = Duration::from_millis(50);

/// Samples that are kept.
const SAMPLES_MAX: usize = 8192;

/// Looks at the coordinator and the zygote between two looks at every process.
const TREE_EVERY: u32 = 4;

pub(super) struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Seen>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    coordinator: u64,
    zygote: u64,
    zygote_files: u32,
}

/// What was seen.
pub(super) struct Seen {
    samples: Vec<Sample>,
    /// Where all processes were looked at.
    pub tree: Tree,
}

/// The most that all processes together, or one worker, were seen to have.
#[derive(Clone, Copy, Default)]
pub(super) struct Tree {
    /// Proportional set size: what is shared counts in parts.
    pub pss: u64,
    /// Of one worker.
    pub worker_private: u64,
    pub page_tables: u64,
    pub swapped: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
}

impl Sampler {
    /// Starts looking at this process and its zygote, and if `whole` at everything below too.
    pub fn start(zygote: u32, whole: bool) -> io::Result<Sampler> {
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            let machine = Machine::here();
            let (start, mut every, mut turn) = (Instant::now(), EVERY, 0u32);
            // All at once, and written to: it is in the memory that is looked at.
            let nothing = Sample { at: Duration::ZERO, coordinator: 0, zygote: 0, zygote_files: 0 };
            let mut samples = vec![nothing; SAMPLES_MAX];
            let (mut count, mut tree) = (0, Tree::default());
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // What waited for a slow disk and is free again is no growth.
                trim_heap();
                let private = |pid| machine.private_of(pid).map(|private| private.anonymous);
                if let (Some(coordinator), Some(of_zygote)) = (private(std::process::id()), private(zygote)) {
                    let zygote_files =
                        fs::read_dir(format!("/proc/{zygote}/fd")).map_or(0, |files| files.count() as u32);
                    samples[count] =
                        Sample { at: start.elapsed(), coordinator, zygote: of_zygote, zygote_files };
                    count += 1;
                }
                if count == SAMPLES_MAX {
                    for at in 0..count / 2 {
                        samples[at] = samples[2 * at];
                    }
                    (count, every) = (count / 2, 2 * every);
                }
                if whole && turn.is_multiple_of(TREE_EVERY) {
                    tree.look(&machine, zygote);
                }
                turn = turn.wrapping_add(1);
            }
            samples.truncate(count);
            Seen { samples, tree }
        };
        Ok(Sampler { stop, thread: threads::start("stress", look)? })
    }

    /// Stops looking.
    pub fn end(self) -> Seen {
        drop(self.stop);
        self.thread.join().expect("the thread only reads files")
    }
}

impl Tree {
    fn look(&mut self, machine: &Machine, zygote: u32) {
        let below = machine.children();
        let workers: Vec<u32> = below.get(&zygote).cloned().unwrap_or_default();
        let (mut pss, mut page_tables, mut swapped, mut faults) = (0, 0, 0, (0, 0));
        for pid in workers.iter().copied().chain([zygote, std::process::id()]) {
            pss += machine.kilobytes_of(&format!("{pid}/smaps_rollup"), "Pss:").unwrap_or(0);
            page_tables += machine.private_of(pid).map_or(0, |private| private.page_tables);
            swapped += machine.kilobytes_of(&format!("{pid}/status"), "VmSwap:").unwrap_or(0);
            let (minor, major) = machine.faults(pid).unwrap_or_default();
            faults = (faults.0 + minor, faults.1 + major);
        }
        let private = workers.iter().filter_map(|pid| machine.private_of(*pid));
        let worker_private = private.map(|private| private.anonymous).max().unwrap_or(0);
        *self = Tree {
            pss: self.pss.max(pss),
            worker_private: self.worker_private.max(worker_private),
            page_tables: self.page_tables.max(page_tables),
            swapped: self.swapped.max(swapped),
            minor_faults: self.minor_faults.max(faults.0),
            major_faults: self.major_faults.max(faults.1),
        };
    }
}

impl Seen {
    pub fn coordinator_most(&self) -> u64 {
        self.most(|sample| sample.coordinator)
    }

    pub fn zygote_most(&self) -> u64 {
        self.most(|sample| sample.zygote)
    }

    fn most(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(of).max().unwrap_or(0)
    }

    pub fn coordinator_growth(&self) -> u64 {
        self.growth(|sample| sample.coordinator)
    }

    pub fn zygote_growth(&self) -> u64 {
        self.growth(|sample| sample.zygote)
    }

    /// By how much more is held in the last quarter of the time than at the end of the first. Each is a median: what is held
    /// for a moment, because the disk or another process was slow, says nothing.
    fn growth(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        let Some(end) = self.samples.last().map(|sample| sample.at) else { return 0 };
        let held = |from: Duration, to: Duration| {
            let within = self.samples.iter().filter(|sample| from <= sample.at && sample.at <= to);
            let mut held: Vec<u64> = within.map(&of).collect();
            held.sort_unstable();
            held.get(held.len() / 2).copied().unwrap_or(0)
        };
        held(3 * end / 4, end).saturating_sub(held(end / 8, end / 4))
    }

    /// Descriptors of the zygote at the end of the first quarter, and at the end.
    pub fn zygote_files(&self) -> (usize, usize) {
        let files = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.zygote_files as usize);
        (files(self.samples.get(self.samples.len() / 4)), files(self.samples.last()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_the_last_quarter_holds_more_than_the_first() {
        let seen = |held: &dyn Fn(u64) -> u64| {
            let sample = |at: u64| Sample {
                at: Duration::from_millis(at),
                coordinator: held(at),
                zygote: 0,
                zygote_files: 0,
            };
            Seen { samples: (0..=800).map(sample).collect(), tree: Tree::default() }.coordinator_growth()
        };
        assert_eq!(seen(&|at| at.min(100)), 0, "it stops in time");
        assert_eq!(seen(&|at| at), 550);
        assert_eq!(seen(&|at| if at == 700 { 9000 } else { 100 }), 0, "a moment is no growth");
        assert_eq!(seen(&|at| if at > 790 { 0 } else { at }), 540, "what the end gives back hides nothing");
    }
}
