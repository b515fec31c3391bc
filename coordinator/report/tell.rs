//! Everything that a run tells the outside, in one place.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use forkyard_shared::ids::WorkerId;
use forkyard_shared::protocol::End;
use forkyard_shared::sys;
use serde_json::json;

use super::events::{Events, EventsWanted, round};
use super::progress::Progress;
use super::trace::Trace;
use crate::alerts::Alert;
use crate::memory::Rooms;
use crate::store::{Outcome, RunSummary};
use crate::text;

/// What the user wants to see.
#[derive(Clone)]
pub(crate) struct ReportOptions {
    pub json: bool,
    pub events: EventsWanted,
    pub quiet: bool,
    pub trace: Option<PathBuf>,
}

/// A moment of a run.
pub(crate) struct Status {
    pub wanted: usize,
    pub settled: usize,
    pub cached: usize,
    pub failed: usize,
    /// What runs, the longest first, and for how long.
    pub running: Vec<(String, Duration)>,
    /// Whether nothing new is started for now.
    pub paused: bool,
    /// The longest way to the end, in seconds.
    pub longest_remaining: f64,
}

/// A node that is settled.
pub(crate) struct Finished<'a> {
    pub node: &'a str,
    pub op: &'a str,
    pub outcome: Outcome,
    pub attempt: u32,
    /// Where and when it ran.
    pub ran: Option<Ran>,
    pub digest: Option<String>,
    pub bytes: Option<u64>,
    pub error: Option<&'a str>,
}

/// Where and when an attempt ran.
#[derive(Clone, Copy)]
pub(crate) struct Ran {
    pub worker: WorkerId,
    pub started_ns: u64,
    pub duration_ns: u64,
}

/// The outside of a run.
pub(crate) struct Report {
    start: Instant,
    events: Option<Events>,
    wanted: EventsWanted,
    progress: Progress,
    trace: Option<Trace>,
    failures_said: usize,
}

/// Errors said while a run goes on; all of them are in `forkyard status` and the journal.
const FAILURES_SAID_MAX: usize = 10;

impl Report {
    /// # Errors
    /// When the trace's file cannot be made.
    pub fn new(options: &ReportOptions, start: Instant, nodes: usize) -> Result<Report, String> {
        let create = |path: &PathBuf| {
            let trace = Trace::create(path, sys::now_ns());
            trace.map_err(|error| format!("--trace {}: {error}", path.display()))
        };
        let trace = options.trace.as_ref().map(create).transpose()?;
        Ok(Report {
            start,
            events: options.json.then(|| Events::new(start)),
            wanted: options.events,
            progress: Progress::new(options.quiet, io::stderr().is_terminal(), nodes),
            trace,
            failures_said: 0,
        })
    }

    /// Whether every node must be told with all that is known of it.
    pub fn wants_all_nodes(&self) -> bool {
        self.trace.is_some() || (self.events.is_some() && self.wanted == EventsWanted::All)
    }

    pub fn run_started(&mut self, run: u64, manifest: &str, nodes: usize, workers: usize, store: &str) {
        self.event(
            "run_started",
            json!({ "run": run, "manifest": manifest, "nodes": nodes, "workers": workers, "store": store }),
        );
    }

    pub fn artifact_mapped(&mut self, fields: serde_json::Value, line: &str) {
        self.event("artifact_mapped", fields);
        self.progress.say(line);
    }

    pub fn worker_started(&mut self, worker: WorkerId, pid: u32) {
        self.event("worker_started", json!({ "worker": worker.0, "pid": pid }));
    }

    pub fn worker_lost(&mut self, worker: WorkerId, pid: u32, end: End, node: Option<&str>) {
        let (status, signal) = match end {
            End::Exit(status) => (Some(status), None),
            End::Signal(signal) => (None, Some(signal)),
        };
        self.event(
            "worker_lost",
            json!({ "worker": worker.0, "pid": pid, "status": status, "signal": signal, "node": node }),
        );
    }

    /// A worker held so much that another takes its place.
    pub fn worker_recycled(&mut self, worker: WorkerId, private_bytes: u64) {
        self.event("worker_recycled", json!({ "worker": worker.0, "private_bytes": private_bytes }));
    }

    /// A process of a worker has pages of an artifact for itself, which all should share.
    pub fn sharing_broken(
        &mut self,
        (worker, pid): (WorkerId, u32),
        artifact: &str,
        copied: u64,
        node: Option<&str>,
    ) {
        self.event(
            "sharing_broken",
            json!({ "worker": worker.0, "pid": pid, "artifact": artifact, "private_bytes": copied, "node": node }),
        );
        let during = node.map_or(String::new(), |node| format!(" while it runs {node}"));
        self.progress.say(&format!(
            "worker {} (process {pid}) has its own copy of {} of artifact {artifact}{during}: it writes to what it has mapped; open it read-only",
            worker.0,
            text::bytes(copied)
        ));
    }

    /// Memory is short, or no longer; what was seen, what is done, and why.
    pub fn pressure(
        &mut self,
        rooms: &Rooms,
        (available, private): (u64, u64),
        action: &str,
        why: &str,
        node: Option<&str>,
    ) {
        let tightest = rooms.tightest();
        let of = &tightest.name;
        self.event(
            "pressure",
            json!({ "available_bytes": available, "private_bytes": private, "action": action, "reason": why,
                "limit": of, "limit_bytes": tightest.limit, "node": node }),
        );
        let (left, held) = (text::bytes(available), text::bytes(private));
        let about = node.map_or(String::new(), |node| format!("node {node} is "));
        self.progress.say(&format!("memory: {left} left of {of}, the workers hold {held}: {about}{why}"));
    }

    /// A threshold was passed.
    pub fn alert(&mut self, alert: &Alert, node: Option<&str>) {
        let Alert { kind, value, threshold, message } = alert;
        self.event(
            "alert",
            json!({ "alert": kind.word(), "value": value, "threshold": threshold, "message": message,
                "node": node }),
        );
        self.progress.say(&format!("alert: {message}"));
    }

    /// Since the start of the run.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The run starts nothing new, or starts again.
    pub fn paused(&mut self, paused: bool) {
        self.event(if paused { "run_paused" } else { "run_resumed" }, json!({}));
        self.progress.say(if paused { "paused: `forkyard resume` goes on" } else { "resumed" });
    }

    pub fn node_finished(&mut self, finished: &Finished) {
        let failed = !finished.outcome.is_done();
        if let (Some(trace), Some(ran)) = (&mut self.trace, finished.ran) {
            trace.span(
                ran.worker,
                finished.node,
                finished.op,
                finished.outcome.word(),
                ran.started_ns,
                ran.duration_ns,
            );
        }
        if self.wanted == EventsWanted::All || (failed && self.wanted == EventsWanted::Failures) {
            let Finished { node, outcome, attempt, ran, digest, bytes, error, .. } = finished;
            self.event(
                "node_finished",
                json!({
                    "node": node,
                    "outcome": outcome.word(),
                    "attempt": attempt,
                    "worker": ran.map(|ran| ran.worker.0),
                    "duration_s": ran.map(|ran| round(ran.duration_ns as f64 / 1e9)),
                    "digest": digest,
                    "bytes": bytes,
                    "error": error,
                }),
            );
        }
        let word = match finished.outcome {
            Outcome::Failed => "failed:",
            Outcome::TimedOut => "timed out:",
            Outcome::Ran if finished.error.is_some() => "ran, but",
            _ => return,
        };
        let error = finished.error.unwrap_or_default();
        self.failures_said += 1;
        if self.failures_said <= FAILURES_SAID_MAX {
            self.progress.say(&format!("node {} {word} {error}", finished.node));
        } else if self.failures_said == FAILURES_SAID_MAX + 1 {
            self.progress.say("there are more such nodes; `forkyard status` lists those that failed");
        }
    }

    pub fn run_finished(&mut self, run: u64, summary: &RunSummary) {
        let mut fields = serde_json::to_value(summary).expect("a summary is plain data");
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("learnt");
            fields.remove("shares");
            fields.insert("run".into(), run.into());
        }
        self.event("run_finished", fields);
        self.progress.finish();
    }

    /// Ends what is written beside the store. What could not be written is said: the run itself went on.
    pub fn finish(&mut self) {
        let trace = self.trace.take().map_or(Ok(()), Trace::finish);
        let events = self.events.as_mut().map_or(Ok(()), Events::finish);
        for (what, end) in [("the trace", trace), ("events to stdout", events)] {
            if let Err(error) = end {
                eprintln!("forkyard: write {what}: {error}");
            }
        }
    }

    /// How often [`Report::show`] should be called.
    pub fn interval(&self) -> Option<Duration> {
        self.progress.interval()
    }

    pub fn show(&mut self, status: &Status) {
        self.progress.show(status);
    }

    /// A line for people.
    pub fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// The run is about to wait: what was said must be readable now.
    pub fn flush(&mut self) {
        if let Some(events) = &mut self.events {
            events.flush();
        }
    }

    fn event(&mut self, event: &str, fields: serde_json::Value) {
        if let Some(events) = &mut self.events {
            events.write(event, fields);
        }
    }
}
