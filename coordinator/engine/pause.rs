//! A paused run starts nothing new; what runs goes on to its end, and its results are committed.

use super::core::Engine;

impl Engine<'_> {
    /// Does what was asked last.
    pub(super) fn heed_pause(&mut self) {
        let paused = self.pool.is_paused();
        if std::mem::replace(&mut self.state.paused, paused) == paused {
            return;
        }
        if paused {
            self.take_back();
        }
        // For `status`, which can do without.
        if let Some(run) = self.run {
            run.mark_paused(paused).ok();
        }
        self.report.paused(paused);
    }
}
