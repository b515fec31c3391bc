//! What the engine asks of whoever runs its nodes: the processes of a [`Pool`], or, in tests, something that stands for
//! them and keeps its own time. The engine knows no other clock than this one.

use std::io;
use std::time::{Duration, Instant};

use forkyard_shared::ids::{NodeId, WorkerId};
use forkyard_shared::protocol::{Batch, Task};
use forkyard_shared::pulse::Pulse;

use crate::memory::Machine;
use crate::pool::{Event, Pool};
use crate::run::RunError;

/// Those that run nodes. Asked once a batch or an event, not once a node.
pub(crate) trait Hands: Send {
    /// What time it is.
    fn now(&self) -> Instant;

    /// The same as workers say it: nanoseconds of CLOCK_MONOTONIC.
    fn now_ns(&self) -> u64;

    /// Waits for the next event, at most until `limit` from now.
    fn next(&mut self, limit: Option<Duration>) -> Result<Option<Event>, String>;

    /// Has `how` set the processes up, if there are any, before the first worker is asked for.
    fn attach(&mut self, how: &mut dyn FnMut(&Pool) -> Result<(), RunError>) -> Result<(), RunError>;

    /// Asks for a worker in this place; [`ToCoordinator::Born`](forkyard_shared::protocol::ToCoordinator::Born) tells
    /// that it runs.
    fn fork(&mut self, worker: WorkerId) -> io::Result<()>;

    /// Sends a batch. One that cannot be sent is lost with its worker, whose death will be told.
    fn send(&mut self, worker: WorkerId, batch: Batch);

    /// Has tasks begun beside those that run.
    fn begin(&mut self, worker: WorkerId, tasks: Vec<Task>);

    /// Has a task given up that was begun so.
    fn cancel(&mut self, worker: WorkerId, node: NodeId);

    /// What a worker is doing.
    fn pulse(&self, worker: WorkerId) -> &Pulse;

    /// Asks for the death of a worker and of everything below it;
    /// [`FromZygote::Died`](forkyard_shared::protocol::FromZygote::Died) tells of it.
    fn kill(&mut self, worker: WorkerId);

    /// Asks for the death of all workers, as [`Hands::kill`].
    fn kill_workers(&mut self);

    /// Kills the zygote, and with it every worker: for when it does not answer.
    fn kill_all(&mut self);

    /// Ends everything, and waits until it is gone.
    fn end(&mut self);

    /// This worker runs.
    fn note_worker(&mut self, pid: u32);

    /// This worker has ended, and everything below it is gone.
    fn forget_worker(&mut self, pid: u32);

    /// The process that forks the workers.
    fn zygote(&self) -> u32;

    /// Random, and in the environment of every command of this run.
    fn token(&self) -> &str;

    /// From now on it is an event when the kernel says that memory gets short.
    fn watch_memory(&mut self, machine: Machine) -> io::Result<()>;

    /// Whether a signal has asked us to end.
    fn is_interrupted(&self) -> bool;

    /// Whether a pause was asked for, and no end of it.
    fn is_paused(&self) -> bool;
}
