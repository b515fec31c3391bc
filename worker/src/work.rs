//! A worker's life: receive a batch, claim and run its tasks one by one, report, until the
//! zygote ends it, or dies itself (then the kernel ends it).

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use forkyard_shared::codec::{self, Frame};
use forkyard_shared::ids::WorkerId;
use forkyard_shared::mapping::PulsePage;
use forkyard_shared::protocol::{
    Cause, Completion, ERROR_MAX_BYTES, FLUSH_BYTES, Failure, FromWorker, LOG_MAX_BYTES, Task as Message,
    ToCoordinator, ToWorker, WorkerEnds, Writes,
};
use forkyard_shared::sys;
use forkyard_shared::value::{Body, INLINE_MAX_BYTES, Kind, Value};
use ipc_channel::IpcError;
use ipc_channel::ipc::{IpcReceiver, IpcSender};

use crate::attach::Attached;
use crate::op::{Failed, Output};
use crate::reap;
use crate::registry::Ops;
use crate::task::{MappedResults, Task};

/// How long a worker looks for its next batch before it sleeps. Waking a sleeper costs some 50 us,
/// looking costs a core: this much is worth it while batches follow each other closely.
const SPIN: Duration = Duration::from_micros(30);

/// A completion whose task took longer than this is reported at once: others may wait for it.
const REPORT_AT_ONCE_NS: u64 = 100_000;

/// Results of other nodes that stay mapped as artifacts.
const MAPPED_RESULTS_MAX: usize = 16;

pub(crate) struct Worker<'a> {
    id: WorkerId,
    ops: &'a Ops,
    attached: &'a Attached,
    pulse: PulsePage,
    mapped: MappedResults,
    outbox: &'a IpcSender<Frame>,
    pending: Vec<Completion>,
    pending_bytes: usize,
}

impl<'a> Worker<'a> {
    pub fn new(
        id: WorkerId,
        ops: &'a Ops,
        attached: &'a Attached,
        outbox: &'a IpcSender<Frame>,
    ) -> std::io::Result<Worker<'a>> {
        let pulse = PulsePage::map(&attached.pulses, id.index())?;
        let mapped = MappedResults::new(MAPPED_RESULTS_MAX);
        Ok(Worker { id, ops, attached, pulse, mapped, outbox, pending: Vec::new(), pending_bytes: 0 })
    }

    /// Serves until it is ended from outside, or the coordinator is gone, which the zygote will act on.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub fn serve(mut self, ends: WorkerEnds) -> Result<(), String> {
        loop {
            let served = receive(&ends.inbox).and_then(|frame| {
                let batch = codec::decode(&frame.0).map_err(|error| IpcError::Io(io::Error::other(error)))?;
                self.run(&batch)
            });
            match served {
                Ok(()) => {}
                Err(IpcError::Disconnected) => return Ok(()),
                Err(IpcError::Io(error))
                    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn run(&mut self, batch: &ToWorker) -> Result<(), IpcError> {
        let slot = usize::from(batch.slot);
        let mut returned = 0;
        let mut now = sys::now_ns();
        while let Some(index) = self.pulse.claim(slot, batch.number) {
            let message = &batch.tasks[usize::from(index)];
            let started_ns = now;
            self.pulse.begin(message.node, started_ns);
            let Attempt { outcome, writes, generates, log } = self.attempt(message);
            self.pulse.end();
            now = sys::now_ns();
            let duration_ns = now - started_ns;
            if duration_ns > REPORT_AT_ONCE_NS {
                // What a command left running must not outlive its task. (Starting one takes longer
                // than this, so that short tasks need not ask.)
                reap::kill_children_except(&[]);
            }
            if outcome.is_err() {
                // Later tasks of the batch may depend on this one: the coordinator decides anew.
                returned = self.pulse.take_back(slot, batch.number).len() as u16;
            }
            let written: usize =
                writes.iter().map(|(key, json)| 8 + key.len() + json.as_ref().map_or(0, Vec::len)).sum();
            self.pending_bytes += 64 + log.len() + inline_bytes(&outcome) + written;
            let node = message.node;
            self.pending.push(Completion { node, started_ns, duration_ns, outcome, writes, generates, log });
            if duration_ns > REPORT_AT_ONCE_NS || self.pending_bytes > FLUSH_BYTES {
                self.report(batch.number, std::mem::take(&mut returned))?;
            }
        }
        if !self.pending.is_empty() || returned > 0 {
            self.report(batch.number, returned)?;
        }
        Ok(())
    }

    fn report(&mut self, batch: u32, returned: u16) -> Result<(), IpcError> {
        let done = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        let message = FromWorker { worker: self.id, batch, done, returned };
        let frame = Frame(codec::encode(&ToCoordinator::Worker(message)));
        self.outbox.send(frame)
    }

    fn attempt(&mut self, message: &Message) -> Attempt {
        let task = match Task::new(message, self.attached, &mut self.mapped) {
            Ok(task) => task,
            Err(failed) => {
                let failure = Failure { message: failed.message, cause: failed.cause };
                return Attempt {
                    outcome: Err(failure),
                    writes: Writes::new(),
                    generates: false,
                    log: failed.log,
                };
            }
        };
        let op = self.ops.get(message.op);
        let mut result = catch_unwind(AssertUnwindSafe(|| op.run(&task)))
            .unwrap_or_else(|panic| Err(Failed::new(format!("the op panicked: {}", panic_text(&*panic)))));
        if let Some(id) = self.attached.struck(&message.artifacts) {
            let setup = &self.attached.artifacts[id.index()].setup;
            let text = format!(
                "artifact \"{}\" ({}) became unreadable while mapped: it was truncated or its disk failed",
                setup.name, setup.path
            );
            result = Err(Failed::new(text).because(Cause::Artifact(id)));
        }
        let generates = result.as_ref().is_ok_and(|output| {
            matches!(&output.value, Value { kind: Kind::Json, body: Body::Inline(bytes), .. } if bytes.starts_with(NODES))
        });
        let result = result.and_then(|output| outsized(&task, output));
        let result = result.and_then(|output| Ok((output, task.into_state().into_writes()?)));
        let (outcome, writes, mut log) = match result {
            Ok((output, writes)) => (Ok(output.value), writes, output.log),
            Err(failed) => {
                let mut message = failed.message;
                truncate_text(&mut message, ERROR_MAX_BYTES);
                (Err(Failure { message, cause: failed.cause }), Writes::new(), failed.log)
            }
        };
        log.truncate(LOG_MAX_BYTES);
        Attempt { outcome, writes, generates, log }
    }
}

/// What came of a task.
struct Attempt {
    outcome: Result<Value, Failure>,
    writes: Writes,
    generates: bool,
    log: Vec<u8>,
}

/// How a result starts that is nodes: keys are sorted, and `$` comes before letters.
const NODES: &[u8] = b"{\"$nodes\":";

/// Moves an inline value that is too long for a message into a file.
fn outsized(task: &Task, output: Output) -> Result<Output, Failed> {
    match &output.value.body {
        Body::Inline(bytes) if bytes.len() > INLINE_MAX_BYTES => {
            let mut sink = task.sink();
            std::io::Write::write_all(&mut sink, bytes)?;
            Ok(Output::written(output.value.kind, sink.finish()?).with_log(output.log))
        }
        _ => Ok(output),
    }
}

fn receive(inbox: &IpcReceiver<Frame>) -> Result<Frame, IpcError> {
    let start = Instant::now();
    loop {
        if let Ok(frame) = inbox.try_recv() {
            return Ok(frame);
        }
        if start.elapsed() > SPIN {
            return inbox.recv();
        }
    }
}

fn inline_bytes(outcome: &Result<Value, Failure>) -> usize {
    match outcome {
        Ok(Value { body: Body::Inline(bytes), .. }) => bytes.len(),
        Ok(_) => 0,
        Err(failure) => failure.message.len(),
    }
}

fn truncate_text(text: &mut String, max_bytes: usize) {
    if text.len() > max_bytes {
        let end = (0..=max_bytes).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
