//! What workers say is looked at before it counts. A worker runs what others have written, so that whatever it says may be
//! wrong: numbers of nodes and places, lengths, digests, names of files. One that says what cannot be true is ended, and its
//! node has crashed. (A process of the same user can do worse than lie: that is not kept out here.)

use std::fs;
use std::path::{Component, Path};

use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::processes;
use forkyard_shared::protocol::{
    Cause, Completion, ERROR_MAX_BYTES, FromZygote, LOG_MAX_BYTES, STATE_MAX_BYTES, ToCoordinator,
};
use forkyard_shared::value::{Body, INLINE_MAX_BYTES, Kind, NULL_DIGEST, Value};

use super::core::Engine;
use crate::places::{Killing, Life};
use crate::run::RunError;

/// No process takes so much, nor so long, nor waits for it: sums of such numbers fit theirs.
const MOST: u64 = 1 << 50;

/// The longest that a node may ask to wait, in milliseconds: `forkyard.RetryAfter` takes no more.
const LATER_MAX_MS: u64 = 24 * 3600 * 1000;

impl Engine<'_> {
    /// Whether a message can be acted upon: not if its sender cannot have sent it, or is about to be ended for a lie. One
    /// whose sender is nobody ends the run.
    pub(super) fn hears(&mut self, message: &ToCoordinator) -> Result<bool, RunError> {
        let worker = match message {
            ToCoordinator::Born(worker, _)
            | ToCoordinator::Python(worker, _)
            | ToCoordinator::LastWords(worker, _)
            | ToCoordinator::Zygote(FromZygote::Died { worker, .. } | FromZygote::ForkFailed(worker, _)) => {
                *worker
            }
            ToCoordinator::Worker(message) => message.worker,
            ToCoordinator::Zygote(_) | ToCoordinator::Wake => return Ok(true),
        };
        let Some(place) = self.state.places.get(worker.index()) else {
            return Err(RunError::Internal(format!("a message from the pool names worker {}", worker.0)));
        };
        let why = match message {
            // The zygote knows, whatever number the worker had told.
            ToCoordinator::Zygote(FromZygote::Died { .. }) => return Ok(true),
            ToCoordinator::Zygote(_) => return Ok(place.life == Life::Asked),
            _ if !place.is_alive() || matches!(place.killing, Some(Killing::Distrusted(..))) => {
                return Ok(false);
            }
            ToCoordinator::Born(..) if place.life != Life::Asked => "it is born twice",
            ToCoordinator::Born(_, pid) | ToCoordinator::Python(_, pid) if !self.may_be_in_the_pool(*pid) => {
                "it calls itself a process that is not the pool's"
            }
            ToCoordinator::LastWords(_, words) if words.len() > LOG_MAX_BYTES => {
                "its last words are too many"
            }
            _ => return Ok(true),
        };
        self.distrust(worker, None, why.into());
        Ok(false)
    }

    /// Nobody can make sense of what this worker has sent; nobody knows who has sent it, if there is none.
    pub(super) fn on_garbled(&mut self, worker: Option<WorkerId>, why: String) -> Result<(), RunError> {
        match worker.filter(|worker| self.state.places.get(worker.index()).is_some_and(|p| p.is_alive())) {
            Some(worker) => self.distrust(worker, None, why),
            None => return Err(RunError::Internal(format!("a message from the pool makes no sense: {why}"))),
        }
        Ok(())
    }

    /// The worker is ended for what it said, and the node that it runs is taken to have made it say so.
    pub(super) fn distrust(&mut self, worker: WorkerId, node: Option<NodeId>, why: String) {
        let place = &mut self.state.places[worker.index()];
        if !place.is_alive() || place.killing.is_some() {
            return;
        }
        let lane = place.lanes.first().map(|lane| lane.node);
        let node = node.filter(|node| place.holds(*node)).or(place.running()).or(lane);
        self.report.say(&format!("worker {} says what cannot be true ({why}), and is ended", worker.0));
        place.killing = Some(Killing::Distrusted(node, why));
        self.pool.kill(worker);
    }

    /// What is wrong with a completion. What only cannot be measured so is put right.
    pub(super) fn fault_in(
        &self,
        worker: WorkerId,
        batch: Option<u32>,
        now_ns: u64,
        completion: &mut Completion,
    ) -> Option<String> {
        let place = &self.state.places[worker.index()];
        let Completion { node, started_ns, duration_ns, outcome, writes, generates, log, cost } = completion;
        if !place.awaits(batch, *node) {
            return Some(format!("it ended node number {}, which it did not run", node.0));
        }
        *started_ns = (*started_ns).min(now_ns);
        *duration_ns = (*duration_ns).min(now_ns - *started_ns);
        if let Some(cost) = cost {
            cost.cpu_ns = cost.cpu_ns.min(MOST);
            cost.delayed_ns = cost.delayed_ns.min(MOST);
            if let Some(private) = &mut cost.private {
                (private.peak, private.rest) = (private.peak.min(MOST), private.rest.min(MOST));
            }
        }
        if log.len() > LOG_MAX_BYTES {
            return Some(format!("a log of {} bytes", log.len()));
        }
        if !writes.is_empty() {
            let signature = self.ops.get(self.nodes.op(*node)).signature();
            let len = |json: &Option<Vec<u8>>| json.as_ref().map_or(0, Vec::len);
            let bytes: usize = writes.iter().map(|(key, json)| key.len() + len(json) + 8).sum();
            if !signature.state && !signature.calls_python() || bytes > STATE_MAX_BYTES {
                return Some(format!("it set {} variables, in {bytes} bytes", writes.len()));
            }
            let is_json = |json: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok();
            if !writes.iter().all(|(_, json)| json.as_deref().is_none_or(is_json)) {
                return Some("it set a variable to what is no JSON".into());
            }
        }
        match outcome {
            Ok(value) if *generates && value.kind != Kind::Json => Some("nodes that are no JSON".into()),
            Ok(value) => self.fault_in_value(worker, value),
            Err(failure) if failure.message.len() > 2 * ERROR_MAX_BYTES => {
                Some(format!("an error of {} bytes", failure.message.len()))
            }
            Err(failure) => match failure.cause {
                Cause::Artifact(artifact) if !self.nodes.artifacts(*node).contains(&artifact) => {
                    Some("its node failed for an artifact that it does not name".into())
                }
                Cause::Later(ms) if ms > LATER_MAX_MS => Some(format!("it is to wait for {ms} ms")),
                // It was alone.
                Cause::Suspect if self.state.suspects.contains(node) => {
                    Some("it does not know which of one node has ended its process".into())
                }
                _ => None,
            },
        }
    }

    fn fault_in_value(&self, worker: WorkerId, value: &Value) -> Option<String> {
        match &value.body {
            Body::Inline(bytes) if bytes.len() > INLINE_MAX_BYTES => {
                Some(format!("a result of {} bytes in a message", bytes.len()))
            }
            Body::Inline(bytes) => {
                let digest = if bytes == b"null" { NULL_DIGEST } else { Digest::of(bytes) };
                (digest != value.digest).then(|| "a result that has not the digest it is said to have".into())
            }
            Body::File { name, len, packed } => {
                let Life::Runs(pid) = self.state.places[worker.index()].life else {
                    return Some("a result before it was born".into());
                };
                let mut parts = Path::new(name).components();
                let is_plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
                if !is_plain || !name.starts_with(&format!("{pid}-")) {
                    return Some(format!("a result in a file that is not its own: {name:?}"));
                }
                let file = fs::symlink_metadata(self.dir.tmp_dir().join(name)).ok();
                let Some(file) = file.filter(fs::Metadata::is_file) else {
                    return Some(format!("a result in a file that is not there: {name:?}"));
                };
                (!*packed && file.len() != *len)
                    .then(|| format!("a result of {len} bytes in a file of {}", file.len()))
            }
        }
    }

    /// Whether a process that a worker names may be of the pool: what the coordinator has started itself is not, nor it
    /// itself, nor the zygote. One that is gone already may have been.
    fn may_be_in_the_pool(&self, pid: u32) -> bool {
        let (ours, zygote) = (std::process::id(), self.pool.zygote());
        let fits = i32::try_from(pid).is_ok_and(|pid| pid > 1);
        fits && pid != ours && pid != zygote && processes::parent(Path::new("/proc"), pid) != Some(ours)
    }
}
