//! A worker's life: receive a batch, claim and run its tasks one by one, report, until the
//! zygote ends it, or dies itself (then the kernel ends it).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use forkyard_shared::codec::{self, Frame};
use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::mapping::PulsePage;
use forkyard_shared::protocol::{
    Batch, Cause, Completion, Cost, ERROR_MAX_BYTES, FLUSH_BYTES, Failure, FromWorker, FromZygote,
    LOG_MAX_BYTES, Task as Message, ToCoordinator, ToWorker, WorkerEnds, Writes,
};
use forkyard_shared::value::{Body, INLINE_MAX_BYTES, Kind, Value};
use forkyard_shared::{spin, sys};
use ipc_channel::ipc::{IpcReceiver, IpcSender};
use ipc_channel::{IpcError, TryRecvError};

use crate::attach::Attached;
use crate::meter::Meter;
use crate::op::{Failed, Output};
use crate::python::{Ended, Flights, Gone, NoChild, Unsent};
use crate::reap;
use crate::registry::Ops;
use crate::state::within_limits;
use crate::task::{MappedResults, Task};

/// A completion whose task took longer than this is reported at once: others may wait for it.
const REPORT_AT_ONCE_NS: u64 = 100_000;

/// Results of other nodes that stay mapped as artifacts.
const MAPPED_RESULTS_MAX: usize = 16;

/// Python tasks that are handed over together, if they are quick.
const GROUP_MAX: usize = 32;

/// A group should take about this long: what is handed over cannot be taken back.
const GROUP_NS: u64 = 1_000_000;

/// Messages that were read while nothing ended, after which the coordinator is told so.
const READ_MAX: u16 = 16;

pub(crate) struct Worker<'a> {
    id: WorkerId,
    ops: &'a Ops,
    attached: &'a Attached,
    pulse: PulsePage,
    mapped: MappedResults,
    outbox: &'a IpcSender<Frame>,
    doorbell: OwnedFd,
    pending: Vec<Completion>,
    pending_bytes: usize,
    meter: Meter,
    /// By op, whether the last task was so quick that the next will hardly be asked what it took.
    is_quick: Vec<bool>,
    python: Flights<'a>,
    /// That of the Python process, once there is one.
    python_meter: Option<Meter>,
    /// What a Python task took lately.
    python_ns: u64,
    /// Messages about tasks that run beside others, read since the last report of such.
    read: u16,
}

/// Why a worker serves no more.
pub(crate) enum Served {
    /// Nobody needs it.
    Enough,
    /// Its Python process has ended, with which it is one.
    PythonEnded,
}

/// Why it stops.
enum Stop {
    Channel(IpcError),
    PythonEnded,
}

impl From<IpcError> for Stop {
    fn from(error: IpcError) -> Stop {
        Stop::Channel(error)
    }
}

impl<'a> Worker<'a> {
    pub fn new(
        id: WorkerId,
        ops: &'a Ops,
        attached: &'a Attached,
        outbox: &'a IpcSender<Frame>,
        doorbell: OwnedFd,
    ) -> std::io::Result<Worker<'a>> {
        let pulse = PulsePage::map(&attached.pulses, id.index())?;
        let mapped = MappedResults::new(MAPPED_RESULTS_MAX);
        let python = Flights::new(attached);
        let (pending, pending_bytes) = (Vec::new(), 0);
        Ok(Worker {
            id,
            ops,
            attached,
            pulse,
            mapped,
            outbox,
            doorbell,
            pending,
            pending_bytes,
            meter: Meter::of_this(),
            is_quick: vec![false; ops.ids().count()],
            python,
            python_meter: None,
            python_ns: 0,
            read: 0,
        })
    }

    /// Serves until it is ended from outside, or the coordinator is gone, which the zygote will act on.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub fn serve(mut self, ends: WorkerEnds) -> Result<Served, String> {
        loop {
            let served = self.next(&ends.inbox).and_then(|frame| match frame {
                Some(frame) => self.obey(&frame),
                None => Ok(()),
            });
            match served {
                Ok(()) => {}
                Err(Stop::PythonEnded) => return Ok(Served::PythonEnded),
                Err(Stop::Channel(IpcError::Disconnected)) => return Ok(Served::Enough),
                Err(Stop::Channel(IpcError::Io(error)))
                    if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
                {
                    return Ok(Served::Enough);
                }
                Err(Stop::Channel(error)) => return Err(error.to_string()),
            }
        }
    }

    /// The next message; none if something else had to be done.
    fn next(&mut self, inbox: &IpcReceiver<Frame>) -> Result<Option<Frame>, Stop> {
        if self.python.tasks().is_empty() {
            return Ok(Some(self.receive(inbox)?));
        }
        match inbox.try_recv_timeout(Duration::ZERO) {
            Ok(frame) => return Ok(Some(frame)),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::IpcError(error)) => return Err(error.into()),
        }
        let doorbell = self.doorbell.try_clone().map_err(IpcError::Io)?;
        let (ended, rung) = self.wait_for_python(Some(doorbell.as_fd()), None)?;
        if rung {
            // Nobody counts how often.
            nix::unistd::read(&self.doorbell, &mut [0; 8]).ok();
        }
        for ended in ended {
            // Others ran beside it: whose the time and the memory were, nobody can tell.
            self.put((ended.node, ended.started_ns, ended.duration_ns), ended.attempt, None);
            if self.pending_bytes > FLUSH_BYTES {
                self.report_begun()?;
            }
        }
        self.report_begun()?;
        Ok(None)
    }

    fn obey(&mut self, frame: &Frame) -> Result<(), Stop> {
        match codec::decode(&frame.0) {
            Ok(ToWorker::Batch(batch)) => self.run(batch),
            Ok(ToWorker::Begin(tasks)) => self.begin(tasks),
            Ok(ToWorker::Cancel(node)) => {
                self.python.cancel(node);
                Ok(())
            }
            Err(error) => Err(Stop::Channel(IpcError::Io(io::Error::other(error)))),
        }
    }

    /// Runs a batch in its order.
    fn run(&mut self, batch: Batch) -> Result<(), Stop> {
        let (slot, number) = (usize::from(batch.slot), batch.number);
        let mut tasks: Vec<Option<Message>> = batch.tasks.into_iter().map(Some).collect();
        let mut returned = 0;
        let mut now = sys::now_ns();
        // Whether what the meter reads next began with the next task. To have it so takes three system calls.
        let mut is_metered = false;
        while let Some(index) = self.pulse.claim(slot, number) {
            let message = tasks[usize::from(index)].take().expect("BUG: a task that is claimed twice");
            if self.ops.get(message.op).signature().calls_python() {
                let group = self.group(message, &mut tasks, (slot, number), usize::from(index));
                self.run_group(group, (slot, number))?;
                now = sys::now_ns();
                is_metered = false;
                continue;
            }
            let op = message.op.index();
            if !is_metered && !self.is_quick[op] {
                self.meter.start();
                is_metered = true;
            }
            let started_ns = now;
            self.pulse.begin(message.node, started_ns);
            let attempt = self.attempt(&message);
            self.pulse.end();
            now = sys::now_ns();
            let duration_ns = now - started_ns;
            let mut cost = None;
            self.is_quick[op] = duration_ns <= REPORT_AT_ONCE_NS;
            if !self.is_quick[op] {
                // What a command left running must not outlive its task. (Starting one takes longer
                // than this, so that short tasks need not ask.)
                reap::kill_children();
                cost = Some(match std::mem::replace(&mut is_metered, true) {
                    true => self.meter.read(duration_ns),
                    false => self.meter.guess(duration_ns),
                });
            } else if is_metered {
                self.meter.skip(duration_ns);
            }
            if attempt.outcome.is_err() {
                // Later tasks of the batch may depend on this one: the coordinator decides anew.
                returned = self.pulse.take_back(slot, number).len() as u16;
            }
            self.put((message.node, started_ns, duration_ns), attempt, cost);
            if duration_ns > REPORT_AT_ONCE_NS || self.pending_bytes > FLUSH_BYTES {
                self.report(Some(number), std::mem::take(&mut returned))?;
            }
        }
        if !self.pending.is_empty() || returned > 0 {
            self.report(Some(number), returned)?;
        }
        Ok(())
    }

    /// The claimed task, and as many Python tasks after it as are quick enough to be handed over with it.
    fn group(
        &self,
        first: Message,
        tasks: &mut [Option<Message>],
        (slot, number): (usize, u32),
        index: usize,
    ) -> Vec<Message> {
        let fits = GROUP_NS.checked_div(self.python_ns).unwrap_or(1).clamp(1, GROUP_MAX as u64) as usize;
        let most = if first.alone { 1 } else { fits };
        let mut group = vec![first];
        let joins = |message: &Message| !message.alone && self.ops.get(message.op).signature().calls_python();
        for at in index + 1.. {
            if group.len() >= most || !tasks.get(at).and_then(Option::as_ref).is_some_and(joins) {
                break;
            }
            match self.pulse.claim(slot, number) {
                Some(claimed) if usize::from(claimed) == at => group.extend(tasks[at].take()),
                // It was taken back meanwhile.
                _ => break,
            }
        }
        group
    }

    /// Has Python run tasks in their order, up to the first that fails.
    fn run_group(&mut self, group: Vec<Message>, (slot, number): (usize, u32)) -> Result<(), Stop> {
        // Nobody is to blame for the end of a process that has no task yet.
        if let Err(stop) = self.start_python() {
            self.report(Some(number), 0)?;
            return Err(stop);
        }
        self.pulse.begin(group[0].node, sys::now_ns());
        let alone = group.len() == 1;
        self.python_meter.iter_mut().for_each(Meter::start);
        let unsent = self.python.hand_over_in_order(group);
        let (mut left, mut failed, mut slow) = (0, false, false);
        while !self.python.tasks().is_empty() {
            for ended in self.wait_for_python(None, Some(number))?.0 {
                self.python_ns = ended.duration_ns;
                left += ended.left;
                failed |= ended.attempt.outcome.is_err();
                slow |= ended.duration_ns > REPORT_AT_ONCE_NS;
                let meter = self.python_meter.as_mut();
                let meter = meter.filter(|_| alone && ended.duration_ns > REPORT_AT_ONCE_NS);
                let cost = meter.map(|meter| meter.read(ended.duration_ns));
                self.put((ended.node, ended.started_ns, ended.duration_ns), ended.attempt, cost);
                if self.pending_bytes > FLUSH_BYTES {
                    self.report(Some(number), 0)?;
                }
            }
            if let Some(next) = self.python.tasks().first() {
                self.pulse.begin(next.node, sys::now_ns());
            }
        }
        self.pulse.end();
        match unsent {
            Some(Unsent { message, failure, after }) if !failed => {
                let attempt = Attempt::of(&Task::new(&message, self.attached), Err(failure));
                self.put((message.node, sys::now_ns(), 0), attempt, None);
                (left, failed) = (after, true);
            }
            Some(Unsent { after, .. }) => left += 1 + after,
            None => {}
        }
        if failed {
            // Later tasks of the batch may depend on this one: the coordinator decides anew.
            left += self.pulse.take_back(slot, number).len();
        }
        if failed || slow || self.pending_bytes > FLUSH_BYTES {
            self.report(Some(number), left as u16)?;
        }
        Ok(())
    }

    /// Begins tasks beside those that run.
    fn begin(&mut self, tasks: Vec<Message>) -> Result<(), Stop> {
        self.read += 1;
        self.start_python()?;
        for (message, failed) in self.python.hand_over(tasks) {
            let attempt = Attempt::of(&Task::new(&message, self.attached), Err(failed));
            self.put((message.node, sys::now_ns(), 0), attempt, None);
        }
        self.report_begun()
    }

    /// Makes sure that there is a Python process. A worker without one is of no use to those who need it.
    fn start_python(&mut self) -> Result<(), Stop> {
        if self.python.pid().is_some() {
            return Ok(());
        }
        let news = match self.python.start() {
            Ok(()) => {
                let pid = self.python.pid().unwrap_or_default();
                self.python_meter = Some(Meter::of(pid));
                // As this worker itself, should memory run out.
                let score = std::fs::read("/proc/self/oom_score_adj").unwrap_or_default();
                std::fs::write(format!("/proc/{pid}/oom_score_adj"), score).ok();
                ToCoordinator::Python(self.id, pid)
            }
            Err(NoChild::Gone) => return Err(Stop::PythonEnded),
            Err(NoChild::Refused(why)) => ToCoordinator::Zygote(FromZygote::ForkFailed(self.id, why)),
        };
        self.tell(&news)?;
        if self.python.pid().is_none() { Err(Stop::PythonEnded) } else { Ok(()) }
    }

    /// What Python has ended, once there is something or the doorbell rings.
    fn wait_for_python(
        &mut self,
        doorbell: Option<BorrowedFd>,
        batch: Option<u32>,
    ) -> Result<(Vec<Ended>, bool), Stop> {
        match self.python.wait(doorbell) {
            Ok(ended) => Ok(ended),
            Err(Gone) => {
                let suspects: Vec<NodeId> = self.python.tasks().iter().map(|task| task.node).collect();
                match suspects.as_slice() {
                    // Whoever hears of our end looks here for what was running.
                    [alone] => {
                        self.pulse.begin(*alone, sys::now_ns());
                        let words = ToCoordinator::LastWords(self.id, self.python.last_words());
                        self.tell(&words)?;
                    }
                    several => {
                        self.pulse.end();
                        for node in several {
                            let failure = Failure { message: String::new(), cause: Cause::Suspect };
                            self.put((*node, sys::now_ns(), 0), Attempt::failed(failure), None);
                        }
                    }
                }
                self.report(batch, 0)?;
                Err(Stop::PythonEnded)
            }
        }
    }

    /// A task has ended: the coordinator is told with the next report.
    fn put(
        &mut self,
        (node, started_ns, duration_ns): (NodeId, u64, u64),
        attempt: Attempt,
        cost: Option<Cost>,
    ) {
        let Attempt { outcome, writes, generates, log } = attempt;
        let written: usize =
            writes.iter().map(|(key, json)| 8 + key.len() + json.as_ref().map_or(0, Vec::len)).sum();
        self.pending_bytes += 64 + log.len() + inline_bytes(&outcome) + written;
        self.pending.push(Completion {
            node,
            started_ns,
            duration_ns,
            outcome,
            writes,
            generates,
            log,
            cost,
        });
    }

    fn report_begun(&mut self) -> Result<(), Stop> {
        if !self.pending.is_empty() || self.read >= READ_MAX {
            self.report(None, 0)?;
        }
        Ok(())
    }

    fn report(&mut self, batch: Option<u32>, returned: u16) -> Result<(), IpcError> {
        self.pending_bytes = 0;
        let done = std::mem::take(&mut self.pending);
        let read = std::mem::take(&mut self.read);
        let message = FromWorker { worker: self.id, batch, done, returned, read };
        self.tell(&ToCoordinator::Worker(message))
    }

    fn tell(&self, news: &ToCoordinator) -> Result<(), IpcError> {
        self.outbox.send(Frame(codec::encode(news)))?;
        self.pulse.say();
        Ok(())
    }

    fn receive(&self, inbox: &IpcReceiver<Frame>) -> Result<Frame, IpcError> {
        // (A look that does not wait by way of `try_recv` would take three system calls.)
        let there = || self.pulse.has_offer().then(|| inbox.try_recv_timeout(Duration::ZERO).ok()).flatten();
        let limit = Duration::from_nanos(self.attached.setup.spin_ns);
        spin::look(limit, there).map_or_else(|| inbox.recv(), Ok)
    }

    fn attempt(&mut self, message: &Message) -> Attempt {
        let mut task = Task::new(message, self.attached);
        if let Err(failed) = task.map_results(&mut self.mapped) {
            return Attempt::of(&task, Err(failed));
        }
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
        let result = result.and_then(|output| Ok((output, within_limits(task.state().take_writes())?)));
        Attempt::of(&task, result)
    }
}

/// What came of a task.
pub(crate) struct Attempt {
    pub outcome: Result<Value, Failure>,
    writes: Writes,
    generates: bool,
    log: Vec<u8>,
}

impl Attempt {
    /// What an op's result comes to.
    pub fn of(task: &Task, result: Result<(Output, Writes), Failed>) -> Attempt {
        let generates = result.as_ref().is_ok_and(|(output, _)| {
            matches!(&output.value, Value { kind: Kind::Json, body: Body::Inline(bytes), .. } if bytes.starts_with(NODES))
        });
        let result = result.and_then(|(output, writes)| {
            let output = outsized(task, output)?;
            if let Body::Inline(bytes) = &output.value.body {
                task.secrets().check(bytes)?;
            }
            for (key, json) in &writes {
                task.secrets().check(key.as_bytes())?;
                task.secrets().check(json.as_deref().unwrap_or_default())?;
            }
            Ok((output, writes))
        });
        let (outcome, writes, mut log) = match result {
            Ok((output, writes)) => (Ok(output.value), writes, output.log),
            Err(failed) => {
                let mut message = failed.message.into_bytes();
                // Before it is cut: half a secret is one too.
                task.secrets().hide(&mut message);
                let mut message = String::from_utf8_lossy(&message).into_owned();
                truncate_text(&mut message, ERROR_MAX_BYTES);
                (Err(Failure { message, cause: failed.cause }), Writes::new(), failed.log)
            }
        };
        task.secrets().hide(&mut log);
        log.truncate(LOG_MAX_BYTES);
        Attempt { outcome, writes, generates, log }
    }

    fn failed(failure: Failure) -> Attempt {
        Attempt { outcome: Err(failure), writes: Writes::new(), generates: false, log: Vec::new() }
    }
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
