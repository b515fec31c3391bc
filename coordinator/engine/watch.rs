//! Alerts: hands what happens to whoever knows the thresholds, and tells what comes of it.

use std::time::Duration;

use forkyard_shared::ids::NodeId;

use super::core::Engine;
use crate::alerts::Alert;
use crate::memory::Rooms;
use crate::report::Ran;
use crate::store::Outcome;

impl Engine<'_> {
    /// A node is settled.
    pub(super) fn watch_node(&mut self, node: NodeId, outcome: Outcome, ran: Option<Ran>) {
        let took = Duration::from_nanos(ran.map_or(0, |ran| ran.duration_ns));
        if self.state.watch.is_long(took) {
            let name = self.nodes.name(node).to_string();
            let alert = self.state.watch.node_took(&name, took);
            self.tell_alert(alert, Some(&name));
        }
        if matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
            self.watch_failures();
        }
    }

    /// So much memory is left, and the workers hold so much.
    pub(super) fn watch_memory(&mut self, rooms: &Rooms) {
        // They may have become fewer, as a part.
        self.watch_failures();
        let tightest = rooms.tightest();
        let used = 1.0 - tightest.available() as f64 / tightest.limit.max(1) as f64;
        let alert = self.state.watch.memory_used(used, &tightest.name);
        self.tell_alert(alert, None);
        let alert = self.state.watch.holds(self.report.elapsed(), self.state.memory.private);
        self.tell_alert(alert, None);
    }

    fn watch_failures(&mut self) {
        let counts = self.scheduler.counts();
        let alert = self.state.watch.failed(counts.failures(), counts.settled());
        self.tell_alert(alert, None);
    }

    fn tell_alert(&mut self, alert: Option<Alert>, node: Option<&str>) {
        if let Some(alert) = alert {
            self.report.alert(&alert, node);
        }
    }
}
