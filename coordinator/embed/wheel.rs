//! Who drives the engine.
//!
//! It has a thread of its own, the *keeper*. But whoever waits for a result has nothing better to do than to drive the
//! engine itself, and then needs nobody to be woken for it. Two locks say who does what:
//!
//! - Who has the *ear* listens to the inbox, asleep or awake: the keeper, or a caller that waits.
//! - Who has the *seat* moves the engine. Who listens leaves the seat before it sleeps, so that a caller that submits a
//!   node meanwhile makes the turn itself.
//!
//! While nobody has the seat, the queue knows that its consumer sleeps: who makes the first entry then has to make a
//! turn, or to wake whoever listens.
//!
//! The keeper rests when nothing is under way and a caller would have driven. It looks up again a moment later: a
//! caller that has submitted a node without waiting for it calls nobody. Who leaves while others' nodes are under way
//! calls it at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::handle::Shared;
use crate::engine::Engine;
use crate::inbox::Inbox;
use crate::run::RunError;

/// How long the keeper rests before it looks whether anybody drives.
const REST: Duration = Duration::from_millis(2);

/// So much later than they are due, timers may be looked at.
const SLACK: Duration = Duration::from_millis(1);

pub(crate) struct Wheel {
    seat: Mutex<Seat>,
    ear: Mutex<()>,
    inbox: Arc<Mutex<Inbox>>,
    /// How long who listens looks before it sleeps.
    spin: Duration,
    /// Set by a caller that would have driven, had nobody else listened.
    wanted: AtomicBool,
    /// How often a caller has driven.
    drives: AtomicU64,
    resting: AtomicU8,
    called: Mutex<bool>,
    call: Condvar,
}

/// The keeper is at work.
const AT_WORK: u8 = 0;
/// It looks up by itself.
const RESTS: u8 = 1;
/// It looks up only if it is called: somebody drives.
const RESTS_UNTIL_CALLED: u8 = 2;

struct Seat {
    /// None: it has panicked, or is over.
    engine: Option<Engine<'static>>,
    /// What its last turn came to.
    end: Option<Result<(), RunError>>,
    /// Until when whoever listens sleeps, if nothing comes.
    sleeps_until: Option<Instant>,
}

impl Seat {
    /// Has the engine do something; none: it is over.
    fn act<T>(&mut self, act: impl FnOnce(&mut Engine<'static>) -> Result<Option<T>, RunError>) -> Option<T> {
        if self.end.is_some() {
            return None;
        }
        let engine = self.engine.as_mut()?;
        self.end = match catch_unwind(AssertUnwindSafe(|| act(engine))) {
            Ok(Ok(Some(done))) => return Some(done),
            Ok(Ok(None)) => Some(Ok(())),
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => {
                // With it, whoever waits is answered.
                self.engine = None;
                Some(Err(RunError::Internal("the engine panicked".into())))
            }
        };
        None
    }
}

impl Wheel {
    pub fn new(mut engine: Engine<'static>, inbox: Arc<Mutex<Inbox>>, spin: Duration) -> Wheel {
        engine.begin();
        Wheel {
            seat: Mutex::new(Seat { engine: Some(engine), end: None, sleeps_until: None }),
            ear: Mutex::new(()),
            inbox,
            spin,
            wanted: AtomicBool::new(false),
            drives: AtomicU64::new(0),
            resting: AtomicU8::new(AT_WORK),
            called: Mutex::new(false),
            call: Condvar::new(),
        }
    }

    /// Keeper: drives whenever no caller does, until the engine is over. The engine, unless it has panicked, and what
    /// its turns came to.
    pub fn keep(&self, shared: &Shared) -> (Option<Engine<'static>>, Result<(), RunError>) {
        loop {
            let ear = self.ear.lock();
            let enough = || self.wanted.load(Relaxed) && shared.under_way() == 0;
            self.drive(shared, None, enough);
            let mut seat = self.seat.lock();
            if let Some(end) = seat.end.take() {
                return (seat.engine.take(), end);
            }
            drop(seat);
            self.resting.store(RESTS, SeqCst);
            self.wanted.store(false, Relaxed);
            drop(ear);
            self.rest(shared);
        }
    }

    fn rest(&self, shared: &Shared) {
        let mut called = self.called.lock();
        loop {
            let drives = self.drives.load(Relaxed);
            if !*called {
                self.call.wait_for(&mut called, REST);
            }
            if *called || shared.under_way() > 0 && !self.ear.is_locked() {
                break;
            }
            if self.ear.is_locked() {
                self.resting.store(RESTS_UNTIL_CALLED, SeqCst);
                // Either we see that the ear is free, or who has left it sees that it has to call.
                fence(SeqCst);
                while self.ear.is_locked() && !*called {
                    self.call.wait(&mut called);
                }
                break;
            }
            if drives == self.drives.load(Relaxed) {
                break;
            }
        }
        *called = false;
        self.resting.store(AT_WORK, SeqCst);
    }

    /// If the keeper rests, it is needed.
    pub fn call_keeper(&self) {
        if self.resting.load(SeqCst) != AT_WORK {
            *self.called.lock() = true;
            self.call.notify_one();
        }
    }

    /// A caller that waits drives, if nobody else listens, until it has waited enough.
    pub fn drive_until(&self, shared: &Shared, deadline: Option<Instant>, enough: impl Fn() -> bool) {
        let Some(ear) = self.ear.try_lock() else {
            self.wanted.store(true, Relaxed);
            return;
        };
        self.drives.fetch_add(1, Relaxed);
        let is_quiet = self.drive(shared, deadline, enough);
        drop(ear);
        fence(SeqCst);
        let is_needed = || shared.under_way() > 0 || self.resting.load(SeqCst) == RESTS_UNTIL_CALLED;
        if !is_quiet || is_needed() {
            self.call_keeper();
        }
    }

    /// Drives; the caller has the ear. False if somebody has to go on at once.
    fn drive(&self, shared: &Shared, deadline: Option<Instant>, enough: impl Fn() -> bool) -> bool {
        let mut seat = self.seat.lock();
        shared.queue.is_awake();
        loop {
            let Some(pause) = seat.act(Engine::turn) else { return false };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let limit = left.map_or(pause, |left| left.min(pause));
            if enough() || left.is_some_and(|left| left.is_zero()) {
                return shared.queue.may_sleep();
            }
            let Some(heard) = seat.act(|engine| engine.hear(limit).map(Some)) else { return false };
            if heard || limit <= self.spin || !shared.queue.may_sleep() {
                continue;
            }
            seat.sleeps_until = Some(Instant::now() + limit);
            // What is wrong with the inbox, the next look tells.
            MutexGuard::unlocked(&mut seat, || self.inbox.lock().sleep(limit).ok());
            seat.sleeps_until = None;
            shared.queue.is_awake();
        }
    }

    /// There is something in the queue, and nobody looks: makes the turn, if nobody else does. False: whoever listens
    /// has to be woken.
    pub fn turn(&self, shared: &Shared) -> bool {
        let Some(mut seat) = self.seat.try_lock() else { return false };
        let answered = |engine: &Engine| engine.answered();
        let before = seat.engine.as_ref().map(answered);
        let Some(pause) = seat.act(Engine::turn) else { return false };
        if !shared.queue.may_sleep() {
            return false;
        }
        match seat.sleeps_until {
            // It may be the one that is answered, or sleep over a time limit.
            Some(until) => {
                seat.engine.as_ref().map(answered) == before && Instant::now() + pause + SLACK >= until
            }
            // Somebody listens soon, and at once if several are under way.
            None => shared.under_way() <= 1,
        }
    }

    /// Wakes whoever is to drive.
    pub fn wake(&self, shared: &Shared) {
        shared.interrupt();
        self.call_keeper();
    }
}
