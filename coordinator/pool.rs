//! The coordinator's side of the processes below it: starts the zygote, asks it to fork and to kill,
//! sends batches, and receives everything in one inbox. Knows nothing of nodes beyond their numbers.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Sender};
use forkyard_shared::codec::{self, Frame};
use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::mapping::PulseBoard;
use forkyard_shared::protocol::{
    ArtifactSetup, Batch, PythonSetup, Setup, Task, ToCoordinator, ToWorker, ToZygote, WorkerEnds,
};
use forkyard_shared::pulse::Pulse;
use forkyard_shared::sys;
use forkyard_worker::zygote::Zygote;
use ipc_channel::IpcError;
use ipc_channel::ipc::{self, IpcSender};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::embed::Request;
use crate::hands::Hands;
use crate::inbox::Inbox;
use crate::memory::{Alarms, Machine};
use crate::queue::Queue;
use crate::run::RunError;
use crate::{limits, sweep, threads};

/// How long the zygote may take to end everything below it before it is killed itself.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What arrives.
pub(crate) enum Event {
    Message(ToCoordinator),
    /// One that makes no sense, why, and who seems to have sent it.
    Garbled(Option<WorkerId>, String),
    /// Ctrl-C, or a polite kill.
    Signal(Signal),
    /// The kernel says that memory gets short.
    Memory,
    /// The zygote is gone, and with it every worker.
    ZygoteGone,
}

/// The signals that ask a run to end, but for those that whoever started us has us ignore (`nohup`).
fn end_signals() -> SigSet {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if ignored & (1 << (signal as u32 - 1)) == 0 {
            signals.add(signal);
        }
    }
    signals
}

/// Asks a run to start nothing new.
pub(crate) const PAUSE: Signal = Signal::SIGUSR1;
/// Asks a paused run to go on.
pub(crate) const RESUME: Signal = Signal::SIGUSR2;

fn pause_signals() -> SigSet {
    [PAUSE, RESUME].into_iter().collect()
}

/// From now on a signal that asks for a pause waits until somebody watches for it, and never ends us.
pub(crate) fn hold_pauses() -> io::Result<()> {
    Ok(pause_signals().thread_block()?)
}

/// Things that our own threads want the event loop to see.
type Noticed = Arc<Mutex<Vec<Event>>>;

/// The way to a worker.
struct Line {
    sender: IpcSender<Frame>,
    /// Rung for a worker that waits for more than its channel.
    doorbell: EventFd,
}

/// The zygote and its workers.
pub(crate) struct Pool {
    pid: Pid,
    control: Arc<OwnedFd>,
    ends: IpcSender<WorkerEnds>,
    inbox: Arc<Mutex<Inbox>>,
    /// To the thread that makes the event loop look up; nobody else holds it, so that it ends with the pool.
    wake: Option<Arc<Sender<()>>>,
    noticed: Noticed,
    /// Whether they may have noticed more than was told.
    woken: Cell<bool>,
    /// Rung when the pool ends: nobody watches the memory for it any more.
    over: Arc<EventFd>,
    /// How long whoever waits for a message looks for it before it sleeps.
    spin: Duration,
    /// Where other threads leave what they want.
    requests: Option<Arc<Queue<Request>>>,
    interrupted: Arc<AtomicBool>,
    paused: Arc<AtomicBool>,
    pulses: Arc<PulseBoard>,
    places: Vec<Option<Line>>,
    /// In the environment of every command of the run.
    token: String,
    /// Every process of the pool that may be there.
    workers: Vec<Pid>,
    ended: bool,
    memory_watch: Option<JoinHandle<()>>,
    zygote_watch: Option<JoinHandle<()>>,
    waker: Option<JoinHandle<()>>,
}

impl Pool {
    /// Takes over a zygote, with room for so many workers. Whoever waits for a message looks for it so long before it
    /// sleeps.
    pub fn new(zygote: Zygote, workers: usize, spin: Duration) -> io::Result<Pool> {
        prctl::set_child_subreaper(true)?;
        limits::raise(zygote.pid)?;
        let (wake, waker) = start_waker(zygote.wake)?;
        let pulses = Arc::new(PulseBoard::new(workers)?);
        let mut pool = Pool {
            pid: zygote.pid,
            control: Arc::new(zygote.control),
            ends: zygote.ends,
            inbox: Arc::new(Mutex::new(Inbox::new(zygote.inbox, pulses.clone()))),
            wake: Some(Arc::new(wake)),
            noticed: Noticed::default(),
            woken: Cell::new(false),
            over: Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?),
            spin,
            requests: None,
            interrupted: Arc::default(),
            paused: Arc::default(),
            pulses,
            places: (0..workers).map(|_| None).collect(),
            token: random_token()?,
            workers: Vec::new(),
            ended: false,
            memory_watch: None,
            zygote_watch: None,
            waker: Some(waker),
        };
        pool.watch_zygote()?;
        Ok(pool)
    }

    /// From now on a request in this queue ends a wait too.
    pub fn take_requests_from(&mut self, requests: Arc<Queue<Request>>) {
        self.requests = Some(requests);
    }

    pub fn spin(&self) -> Duration {
        self.spin
    }

    /// Where everything arrives.
    pub fn inbox(&self) -> Arc<Mutex<Inbox>> {
        self.inbox.clone()
    }

    /// Random, and in the environment of every command of this run.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Hands the zygote what every worker is to know; it maps the artifacts and answers
    /// [`FromZygote::Ready`] into the inbox.
    pub fn set_up(
        &self,
        setup: Setup,
        (lock, arena): (&impl AsFd, &impl AsFd),
        artifacts: Vec<(ArtifactSetup, Vec<OwnedFd>)>,
    ) -> io::Result<()> {
        self.tell(&ToZygote::Setup(setup), &[lock.as_fd(), self.pulses.file().as_fd(), arena.as_fd()])?;
        for (artifact, fds) in artifacts {
            let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
            self.tell(&ToZygote::Artifact(artifact), &fds)?;
        }
        self.tell(&ToZygote::Attach, &[])
    }

    /// Has the zygote start Python; it answers [`FromZygote::PythonReady`].
    pub fn start_python(&self, setup: PythonSetup) -> io::Result<()> {
        self.tell(&ToZygote::Python(setup), &[])
    }

    fn say(&self, worker: WorkerId, message: &ToWorker) {
        if let Some(line) = &self.places[worker.index()] {
            line.sender.send(Frame(codec::encode(message))).ok();
        }
    }

    fn ring(&self, worker: WorkerId) {
        if let Some(line) = &self.places[worker.index()] {
            // One that was rung often enough to be full wakes its worker too.
            line.doorbell.write(1).ok();
        }
    }

    /// Waits for the next event, at most until `limit` from now. Where there may be requests, it only looks for a moment,
    /// and whoever drives the engine sleeps over its inbox.
    pub fn next(&self, limit: Option<Duration>) -> Result<Option<Event>, String> {
        if self.woken.get() {
            return Ok(Some(self.noticed()));
        }
        let requests = self.requests.as_ref();
        let mut inbox = self.inbox.lock();
        let limit = limit.unwrap_or(Duration::MAX);
        let mut frame =
            inbox.look(limit.min(self.spin), || requests.is_some_and(|requests| requests.has_any()))?;
        if frame.is_none() && limit > self.spin && requests.is_none() {
            inbox.sleep(limit - self.spin)?;
            frame = inbox.look(Duration::ZERO, || false)?;
        }
        let Some(frame) = frame else { return Ok(None) };
        match codec::decode(&frame.0) {
            Ok(ToCoordinator::Wake) => {
                self.woken.set(true);
                Ok(Some(self.noticed()))
            }
            Ok(message) => Ok(Some(Event::Message(message))),
            Err(why) => Ok(Some(Event::Garbled(ToCoordinator::worker_in(&frame.0), why))),
        }
    }

    /// What our threads have noticed, one by one; after the last that they woke us, for some have no more to say.
    fn noticed(&self) -> Event {
        let mut noticed = self.noticed.lock();
        if noticed.is_empty() {
            self.woken.set(false);
            return Event::Message(ToCoordinator::Wake);
        }
        noticed.remove(0)
    }

    /// Something with which another thread makes the event loop look up. Never waits: the loop may be waiting for
    /// that very thread. It holds nothing of the pool, which may end before that thread.
    pub fn waker(&self) -> impl Fn() + Send + 'static {
        let wake = self.wake.as_ref().map(Arc::downgrade).unwrap_or_default();
        // One that has not been heard yet will do.
        move || {
            if let Some(wake) = wake.upgrade() {
                wake.try_send(()).ok();
            }
        }
    }

    /// From now on a signal that asks us to end is an event. Until now it just ends us: nothing runs yet, and the
    /// zygote ends with us.
    pub fn watch_signals(&self) -> io::Result<()> {
        let signals = end_signals();
        signals.thread_block()?;
        let (noticed, wake, interrupted) = (self.noticed.clone(), self.waker(), self.interrupted.clone());
        let (paused, watched) = (self.paused.clone(), signals | pause_signals());
        threads::start("signals", move || {
            while let Ok(signal) = watched.wait() {
                match signal {
                    PAUSE => paused.store(true, Relaxed),
                    RESUME => paused.store(false, Relaxed),
                    signal => {
                        interrupted.store(true, Relaxed);
                        noticed.lock().push(Event::Signal(signal));
                    }
                }
                wake();
            }
        })?;
        Ok(())
    }

    /// Set as soon as a signal asks us to end, for whoever is at something long.
    pub fn interrupted(&self) -> Arc<AtomicBool> {
        self.interrupted.clone()
    }

    /// The zygote holds the only other end of this socket: its end of file is the zygote's end.
    fn watch_zygote(&mut self) -> io::Result<()> {
        let (control, noticed, wake) = (self.control.clone(), self.noticed.clone(), self.waker());
        self.zygote_watch = Some(threads::start("zygote watch", move || {
            while let Ok(Some(_)) = sys::receive_packet(&control) {}
            noticed.lock().push(Event::ZygoteGone);
            wake();
        })?);
        Ok(())
    }

    /// Waits for the zygote's end, at most so long: it may have been stopped.
    fn await_zygote(&self, patience: Duration) {
        let Ok(end) = sys::pidfd_open(self.pid) else { return };
        let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        while poll(&mut [PollFd::new(end.as_fd(), PollFlags::POLLIN)], patience) == Err(Errno::EINTR) {}
    }

    fn tell(&self, message: &ToZygote, fds: &[std::os::fd::BorrowedFd]) -> io::Result<()> {
        sys::send_packet(&self.control, &codec::encode(message), fds)
    }
}

impl Hands for Pool {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn now_ns(&self) -> u64 {
        sys::now_ns()
    }

    fn next(&mut self, limit: Option<Duration>) -> Result<Option<Event>, String> {
        Pool::next(self, limit)
    }

    fn attach(&mut self, how: &mut dyn FnMut(&Pool) -> Result<(), RunError>) -> Result<(), RunError> {
        how(self)
    }

    fn token(&self) -> &str {
        Pool::token(self)
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Relaxed)
    }

    fn fork(&mut self, worker: WorkerId) -> io::Result<()> {
        let (sender, inbox) = ipc::channel()?;
        self.pulses.begin(worker.index());
        // First the channel, then the command that makes the zygote look for it.
        self.ends.send(WorkerEnds { inbox }).map_err(|error| match error {
            IpcError::Io(error) => error,
            other => io::Error::other(other.to_string()),
        })?;
        let doorbell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        self.tell(&ToZygote::Fork(worker), &[doorbell.as_fd()])?;
        self.places[worker.index()] = Some(Line { sender, doorbell });
        Ok(())
    }

    fn send(&mut self, worker: WorkerId, batch: Batch) {
        let slot = usize::from(batch.slot);
        self.pulse(worker).offer(slot, batch.number, batch.tasks.len() as u16);
        self.say(worker, &ToWorker::Batch(batch));
    }

    fn begin(&mut self, worker: WorkerId, tasks: Vec<Task>) {
        self.say(worker, &ToWorker::Begin(tasks));
        self.ring(worker);
    }

    fn cancel(&mut self, worker: WorkerId, node: NodeId) {
        self.say(worker, &ToWorker::Cancel(node));
        self.ring(worker);
    }

    fn pulse(&self, worker: WorkerId) -> &Pulse {
        self.pulses.page(worker.index())
    }

    fn kill(&mut self, worker: WorkerId) {
        // A zygote that cannot be told is gone, and the worker with it.
        self.tell(&ToZygote::Kill(worker), &[]).ok();
    }

    fn kill_workers(&mut self) {
        self.tell(&ToZygote::KillAll, &[]).ok();
    }

    fn kill_all(&mut self) {
        kill(self.pid, Signal::SIGKILL).ok();
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            kill(self.pid, Signal::SIGTERM).ok();
            self.await_zygote(END_PATIENCE);
            kill(self.pid, Signal::SIGKILL).ok();
            waitpid(self.pid, None).ok();
            sweep::kill_adopted(self.pid, &self.token, &self.workers);
            self.over.write(1).ok();
            // Both end now, and close what they have open.
            for watch in self.memory_watch.take().into_iter().chain(self.zygote_watch.take()) {
                watch.join().ok();
            }
            drop(self.wake.take());
            if let Some(waker) = self.waker.take() {
                // It may be waiting for room in the inbox, which nobody reads any more.
                const MOMENT: Duration = Duration::from_millis(1);
                while !waker.is_finished() && matches!(self.inbox.lock().take(MOMENT), Ok(Some(_))) {}
                waker.join().ok();
            }
        }
    }

    fn note_worker(&mut self, pid: u32) {
        self.workers.push(Pid::from_raw(pid as i32));
    }

    fn forget_worker(&mut self, pid: u32) {
        self.workers.retain(|worker| worker.as_raw() != pid as i32);
    }

    fn zygote(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    fn watch_memory(&mut self, machine: Machine) -> io::Result<()> {
        let (noticed, wake, over) = (self.noticed.clone(), self.waker(), self.over.clone());
        self.memory_watch = Some(threads::start("memory watch", move || {
            // Here, for the kernel takes some milliseconds for each.
            let alarms = Alarms::set(&machine);
            while alarms.wait(&over) {
                let mut noticed = noticed.lock();
                if !noticed.iter().any(|event| matches!(event, Event::Memory)) {
                    noticed.push(Event::Memory);
                    drop(noticed);
                    wake();
                }
            }
        })?);
        Ok(())
    }

    fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the thread that wakes the event loop through its inbox. That may be full of what workers say, and is then
/// waited for.
fn start_waker(inbox: IpcSender<Frame>) -> io::Result<(Sender<()>, JoinHandle<()>)> {
    let (wake, asked) = channel::bounded(1);
    let waker = threads::start("waker", move || {
        asked.iter().for_each(|()| drop(inbox.send(Frame(codec::encode(&ToCoordinator::Wake)))));
    })?;
    Ok((wake, waker))
}

fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
