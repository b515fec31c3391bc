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
//! The keeper listens only while nodes are under way and no caller does. Else it rests: soundly while nothing is under
//! way, until a timer is due (what else might be in the inbox then does not hurry); lightly after a caller has come or
//! gone, to look a moment later whether somebody is to be listened for. Who leaves while others' nodes are under way
//! has it come at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
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
const LIGHTLY: Duration = Duration::from_millis(2);

/// So much later than they are due, timers may be looked at.
const SLACK: Duration = Duration::from_millis(1);

pub(crate) struct Wheel {
    seat: Mutex<Seat>,
    ear: Mutex<()>,
    inbox: Arc<Mutex<Inbox>>,
    /// How long who listens looks before it sleeps.
    spin: Duration,
    /// How often a caller has driven.
    drives: AtomicU64,
    /// Whether the keeper does not look up soon by itself.
    rests_soundly: AtomicBool,
    call: Mutex<Option<Call>>,
    called: Condvar,
}

/// What the keeper is called for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    /// Something is under way: it is to look a moment later whether anybody waits for that.
    Look,
    /// It is to listen, if nobody else does.
    Come,
}

struct Seat {
    /// None: it has panicked, or is over.
    engine: Option<Engine<'static>>,
    /// What its last turn came to.
    end: Option<Result<(), RunError>>,
    /// For how long there was nothing to do after that.
    pause: Duration,
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
            seat: Mutex::new(Seat {
                engine: Some(engine),
                end: None,
                pause: Duration::ZERO,
                sleeps_until: None,
            }),
            ear: Mutex::new(()),
            inbox,
            spin,
            drives: AtomicU64::new(0),
            rests_soundly: AtomicBool::new(false),
            call: Mutex::new(None),
            called: Condvar::new(),
        }
    }

    /// Keeper: drives where no caller does, until the engine is over. The engine, unless it has panicked, and what its
    /// turns came to.
    pub fn keep(&self, shared: &Shared) -> (Option<Engine<'static>>, Result<(), RunError>) {
        loop {
            let ear = self.ear.lock();
            // What has come, and become due, while nobody listened.
            while self.seat.lock().act(|engine| engine.hear(Duration::ZERO).map(Some)) == Some(true) {}
            let is_quiet = self.drive(shared, None, || shared.under_way() == 0);
            let mut seat = self.seat.lock();
            if let Some(end) = seat.end.take() {
                return (seat.engine.take(), end);
            }
            let pause = seat.pause;
            drop(seat);
            drop(ear);
            if is_quiet {
                self.rest(shared, pause);
            }
        }
    }

    /// Until there is somebody to be listened for, or so much time has passed.
    fn rest(&self, shared: &Shared, pause: Duration) {
        let mut call = self.call.lock();
        let (mut drives, mut is_over) = (None, false);
        while *call != Some(Call::Come) && !is_over {
            let seen = self.drives.load(Relaxed);
            if call.take().is_some() || drives != Some(seen) {
                // While callers come and go they hear everything: to step in between would disturb them.
                drives = Some(seen);
                self.called.wait_for(&mut call, LIGHTLY);
                continue;
            }
            self.rests_soundly.store(true, SeqCst);
            // Either we see what is to be done, or who leaves it to us sees that it has to call.
            fence(SeqCst);
            if shared.under_way() == 0 || self.ear.is_locked() {
                is_over = self.called.wait_for(&mut call, pause).timed_out() && !self.ear.is_locked();
            } else {
                is_over = true;
            }
            self.rests_soundly.store(false, SeqCst);
        }
        *call = None;
    }

    fn call(&self, call: Call) {
        let mut called = self.call.lock();
        *called = (*called).max(Some(call));
        drop(called);
        self.called.notify_one();
    }

    /// The keeper is to listen, if nobody else does.
    pub fn call_keeper(&self) {
        self.call(Call::Come);
    }

    /// A caller that waits drives, if nobody else listens, until it has waited enough.
    pub fn drive_until(&self, shared: &Shared, deadline: Option<Instant>, enough: impl Fn() -> bool) {
        let Some(ear) = self.ear.try_lock() else { return };
        self.drives.fetch_add(1, Relaxed);
        let is_quiet = self.drive(shared, deadline, enough);
        drop(ear);
        if !is_quiet || shared.under_way() > 0 {
            self.call_keeper();
        }
    }

    /// Drives; the caller has the ear. False if somebody has to go on at once.
    fn drive(&self, shared: &Shared, deadline: Option<Instant>, enough: impl Fn() -> bool) -> bool {
        let mut seat = self.seat.lock();
        shared.queue.is_awake();
        loop {
            let Some(pause) = seat.act(Engine::turn) else { return false };
            seat.pause = pause;
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
            None if shared.under_way() > 1 => false,
            None => {
                drop(seat);
                if self.rests_soundly.load(SeqCst) {
                    self.call(Call::Look);
                }
                true
            }
        }
    }

    /// Wakes whoever is to drive.
    pub fn wake(&self, shared: &Shared) {
        if self.ear.is_locked() {
            shared.interrupt();
        }
        self.call_keeper();
    }
}
