//! `forkyard cancel`, `pause` and `resume`: a signal to the coordinator of the run that goes on. What the signal does
//! there is not known here.

use std::path::Path;

use nix::sys::signal::Signal;

use super::exit::{Exit, Failure};
use super::runs::find;
use crate::pool::{PAUSE, RESUME};
use crate::store::{Live, RunDir, StoreDir};

/// What is asked of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Request {
    Cancel,
    Pause,
    Resume,
}

pub(super) fn control(store: &Path, run: Option<u64>, request: Request) -> Result<Exit, Failure> {
    let named = run.map(|_| find(store, run)).transpose()?;
    let (run, live) = live_run(store)?;
    if let Some(named) = named.filter(|named| named.id != run.id) {
        return Err(Failure::new(Exit::Usage, format!("run {} is over; run {} goes on", named.id, run.id)));
    }
    let signal = match request {
        Request::Pause => PAUSE,
        Request::Resume => RESUME,
        // A shell starts what it puts into the background with SIGINT ignored.
        Request::Cancel if live.ignores(Signal::SIGINT) => Signal::SIGTERM,
        Request::Cancel => Signal::SIGINT,
    };
    live.send(signal).map_err(|error| {
        Failure::new(Exit::Usage, format!("run {} (process {}) takes no signal: {error}", run.id, live.pid))
    })?;
    let what = match request {
        Request::Cancel => "stops: what runs goes on to its end (cancel it once more to stop now)",
        Request::Pause => {
            "pauses: what runs goes on to its end, nothing new is started until `forkyard resume`"
        }
        Request::Resume => "goes on",
    };
    eprintln!("run {} {what}", run.id);
    Ok(Exit::Ok)
}

/// The run that goes on, and its coordinator.
fn live_run(store: &Path) -> Result<(RunDir, Live), Failure> {
    let newest = find(store, None)?;
    let lock = StoreDir::new(store).lock_path();
    let live = Live::holding(&lock).map_err(|error| {
        let message = format!("look at the process that holds {}: {error}", lock.display());
        Failure::new(Exit::Usage, message)
    })?;
    let is_of = |live: &Live| newest.header().is_some_and(|header| header.pid == live.pid);
    match live {
        // A run blocks these from its first line on. Another user of the store (a verify, a gc) would die of them.
        Some(live) if is_of(&live) && live.blocks(PAUSE) => Ok((newest, live)),
        Some(live) => Err(Failure::new(
            Exit::Usage,
            format!(
                "no run of store {} goes on; process {} uses it, without a run so far",
                store.display(),
                live.pid
            ),
        )),
        None => Err(Failure::new(
            Exit::Usage,
            format!("no run of store {} goes on; the newest, run {}, is over", store.display(), newest.id),
        )),
    }
}
