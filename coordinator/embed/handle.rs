//! The pool as its program sees it, and what it shares with the engine's thread.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forkyard_shared::codec::{self, Frame};
use forkyard_shared::protocol::ToCoordinator;
use forkyard_worker::Ops;
use ipc_channel::ipc::IpcSender;
use parking_lot::{Condvar, Mutex};

use super::builder::Builder;
use super::error::SubmitError;
use super::node::{Checked, Node, Request, Submission};
use super::ticket::{Slot, Ticket};
use super::wheel::Wheel;
use crate::queue::Queue;

/// Nodes of [`Pool::submit_many`] that are handed over together.
const TOGETHER: usize = 1024;

/// Workers that share the artifacts, and the engine that keeps them busy. See [`Pool::builder`].
///
/// Nodes may be submitted from any thread. Those of a thread start in the order in which it has submitted them, if
/// they have one priority. At most [`Builder::bound`] nodes are under way: [`Pool::submit`] waits for room.
///
/// There is one pool in the life of a process, because workers are copies of the process as it was when
/// [`crate::init`] was called. Dropping a pool is [`Pool::close`].
pub struct Pool {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Mutex<Option<JoinHandle<()>>>,
}

/// What submitting threads and the engine's thread share.
pub(crate) struct Shared {
    ops: &'static Ops,
    artifacts: Vec<String>,
    pub queue: Arc<Queue<Request>>,
    /// The engine, once there is one, and a way to wake whoever listens for it.
    wheel: OnceLock<(Wheel, Mutex<IpcSender<Frame>>)>,
    /// Nodes that are under way.
    open: AtomicUsize,
    bound: usize,
    /// How long who waits looks before it sleeps.
    pub spin: Duration,
    /// Threads that wait for room, or are about to.
    waiting: AtomicU32,
    lock: Mutex<()>,
    room: Condvar,
    /// Set when nothing more is taken; why.
    ended: OnceLock<String>,
}

impl Shared {
    pub(super) fn new(ops: &'static Ops, artifacts: Vec<String>, bound: usize, spin: Duration) -> Shared {
        Shared {
            ops,
            artifacts,
            queue: Arc::default(),
            wheel: OnceLock::new(),
            open: AtomicUsize::new(0),
            bound: bound.max(1),
            spin,
            waiting: AtomicU32::new(0),
            lock: Mutex::new(()),
            room: Condvar::new(),
            ended: OnceLock::new(),
        }
    }

    /// Engine: here it is; a message by way of `wake` wakes who listens.
    pub(super) fn begin(&self, wheel: Wheel, wake: IpcSender<Frame>) -> &Wheel {
        &self.wheel.get_or_init(|| (wheel, Mutex::new(wake))).0
    }

    /// Hands something over; if nobody looks, the engine's turn is made here.
    pub(super) fn send(&self, request: Request) {
        if self.queue.push(request)
            && let Some((wheel, _)) = self.wheel.get()
            && !wheel.turn(self)
        {
            wheel.wake(self);
        }
    }

    fn wake(&self) {
        if let Some((wheel, _)) = self.wheel.get() {
            wheel.wake(self);
        }
    }

    /// Wakes whoever listens.
    pub(super) fn interrupt(&self) {
        if let Some((_, wake)) = self.wheel.get() {
            // An engine that hears nothing is gone, and has answered everything.
            wake.lock().send(Frame(codec::encode(&ToCoordinator::Wake))).ok();
        }
    }

    /// Drives the engine until there is enough of it, unless somebody else does.
    pub(super) fn drive_until(&self, deadline: Option<Instant>, enough: impl Fn() -> bool) {
        if let Some((wheel, _)) = self.wheel.get() {
            wheel.drive_until(self, deadline, enough);
        }
    }

    /// How many nodes are under way.
    pub(super) fn under_way(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Counts nodes that are about to be handed over. In this order: the engine that ends says so first and then
    /// waits for those that are counted, so that none is handed to nobody.
    fn enter(&self, nodes: usize) -> Result<(), SubmitError> {
        let room = |open: usize| (open < self.bound).then_some(open + nodes);
        let entered = self.open.fetch_update(SeqCst, SeqCst, room).is_ok();
        match self.ended.get() {
            Some(why) => {
                if entered {
                    self.leave(nodes);
                }
                Err(SubmitError::Closed(why.clone()))
            }
            None if entered => Ok(()),
            None => Err(SubmitError::Full),
        }
    }

    /// The same, once there is room.
    fn enter_later(&self, nodes: usize) -> Result<(), SubmitError> {
        loop {
            match self.enter(nodes) {
                Err(SubmitError::Full) => {}
                entered => return entered,
            }
            self.waiting.fetch_add(1, SeqCst);
            let mut lock = self.lock.lock();
            // Whoever makes room from now on finds us waiting. Nobody may be about to, unless it is said.
            if let Some((wheel, _)) = self.wheel.get() {
                wheel.call_keeper();
            }
            if self.open.load(SeqCst) >= self.bound && self.ended.get().is_none() {
                self.room.wait(&mut lock);
            }
            drop(lock);
            self.waiting.fetch_sub(1, SeqCst);
        }
    }

    /// So many nodes are not under way any more.
    pub fn leave(&self, nodes: usize) {
        let before = self.open.fetch_sub(nodes, SeqCst);
        if before - nodes < self.bound && self.waiting.load(SeqCst) > 0 {
            drop(self.lock.lock());
            self.room.notify_all();
        }
    }

    /// Nothing more is taken from now on.
    pub fn end(&self, why: &str) {
        self.ended.get_or_init(|| why.into());
        // Those that count from now on see it.
        std::sync::atomic::fence(SeqCst);
        drop(self.lock.lock());
        self.room.notify_all();
    }

    /// Whether nothing more comes: it was closed, and all that was handed over is answered.
    pub fn is_over(&self) -> bool {
        self.ended.get().is_some() && self.open.load(SeqCst) == 0
    }
}

impl Pool {
    /// Says what a pool consists of.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Hands a node over. Waits while as many as [`Builder::bound`] allows are under way.
    ///
    /// # Errors
    /// When the node cannot run, or the pool takes no more.
    pub fn submit(&self, node: Node) -> Result<Ticket, SubmitError> {
        let checked = self.check(node)?;
        self.shared.enter_later(1)?;
        Ok(self.hand_over(checked))
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// As [`Pool::submit`], and [`SubmitError::Full`].
    pub fn try_submit(&self, node: Node) -> Result<Ticket, SubmitError> {
        let checked = self.check(node)?;
        self.shared.enter(1)?;
        Ok(self.hand_over(checked))
    }

    /// Hands many nodes over, in their order; cheaper than one by one.
    ///
    /// # Errors
    /// As [`Pool::submit`]. If a node cannot run, none is handed over; if the pool is closed meanwhile, the first ones
    /// may have been, and run without anybody who wants their result.
    pub fn submit_many(&self, nodes: impl IntoIterator<Item = Node>) -> Result<Vec<Ticket>, SubmitError> {
        let checked = nodes.into_iter().map(|node| self.check(node)).collect::<Result<Vec<_>, _>>()?;
        let mut tickets = Vec::with_capacity(checked.len());
        let mut left = checked.into_iter().peekable();
        while left.peek().is_some() {
            let now = left.len().min(TOGETHER).min(self.shared.bound);
            self.shared.enter_later(now)?;
            let wake = self.shared.queue.push_all(left.by_ref().take(now).map(|checked| {
                let (submission, ticket) = self.ticket(checked);
                tickets.push(ticket);
                submission
            }));
            if wake {
                self.shared.wake();
            }
        }
        Ok(tickets)
    }

    /// How many nodes are under way.
    pub fn under_way(&self) -> usize {
        self.shared.under_way()
    }

    /// Takes no more nodes, waits until those that are under way have ended, and ends the workers. With a store,
    /// everything is durable then.
    ///
    /// # Errors
    /// Why the pool had ended before, if it had: the store took no more results, or the process that forks the
    /// workers was killed.
    pub fn close(&self) -> Result<(), SubmitError> {
        if let Some(engine) = self.engine.lock().take() {
            self.shared.end(CLOSED);
            self.shared.send(Request::Close);
            engine.join().ok();
        }
        match self.shared.ended.get() {
            Some(why) if why != CLOSED => Err(SubmitError::Closed(why.clone())),
            _ => Ok(()),
        }
    }

    fn check(&self, node: Node) -> Result<Checked, SubmitError> {
        node.check(self.shared.ops, &self.shared.artifacts)
    }

    fn hand_over(&self, checked: Checked) -> Ticket {
        let (submission, ticket) = self.ticket(checked);
        self.shared.send(submission);
        ticket
    }

    fn ticket(&self, checked: Checked) -> (Request, Ticket) {
        let Checked { shape, params, salt, priority } = checked;
        let slot = Arc::new(Slot::new());
        let submission = Submission { shape, params, salt, priority, slot: slot.clone() };
        (Request::Submit(submission), Ticket { slot, shared: self.shared.clone() })
    }
}

/// Why a pool takes no more that was closed.
const CLOSED: &str = "it was closed";

impl Drop for Pool {
    fn drop(&mut self) {
        self.close().ok();
    }
}
