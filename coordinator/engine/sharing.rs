//! Broken sharing: a process that has mapped an artifact so that it may write to it has a copy of every page that it wrote.
//! One worker is looked at each time, for the kernel walks all pages of its artifacts.

use std::os::unix::fs::MetadataExt;

use forkyard_shared::ids::WorkerId;

use super::core::Engine;
use crate::places::Life;

/// Smaller copies are not worth a word.
const COPIED_MIN: u64 = 1 << 20;

/// A worker that holds less cannot have copied much.
const HELD_MIN: u64 = 4 << 20;

impl Engine<'_> {
    /// Looks whether the next worker that holds something has copied an artifact, and tells it once of each.
    pub(super) fn look_at_sharing(&mut self) {
        let places = self.state.places.len();
        let after = |step| WorkerId::new((self.state.shared_seen + 1 + step) % places);
        let holds = |worker: &WorkerId| self.state.admission.seen(*worker) > HELD_MIN;
        let Some(worker) = (0..places).map(after).find(holds) else { return };
        self.state.shared_seen = worker.index();
        let files: Vec<(u64, u64)> =
            self.artifacts.iter().map(|artifact| file_of(&artifact.entry.path)).collect();
        let place = &self.state.places[worker.index()];
        let Life::Runs(pid) = place.life else { return };
        for pid in [Some(pid), place.python].into_iter().flatten() {
            let copied = self.state.memory.machine.copied_of(pid, &files).unwrap_or_default();
            for (at, bytes) in copied.into_iter().enumerate().filter(|(_, bytes)| *bytes > COPIED_MIN) {
                if self.state.copied.insert((worker, at)) {
                    let node = self.state.places[worker.index()].running().map(|node| self.nodes.name(node));
                    self.report.sharing_broken(
                        (worker, pid),
                        &self.artifacts[at].entry.name,
                        bytes,
                        node.as_deref(),
                    );
                }
            }
        }
    }
}

/// Device and inode; of a file that is not there those of none.
fn file_of(path: &std::path::Path) -> (u64, u64) {
    std::fs::metadata(path).map_or((0, 0), |file| (file.dev(), file.ino()))
}
