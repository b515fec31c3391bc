//! The event loop: looks ready nodes up, hands those that must run to workers in batches, and takes what
//! comes back. The only place where the state of a run changes.
//!
//! - Look up what has become ready; what is stored is done without a worker.
//! - Fill the workers, most urgent node first.
//! - Hand the results of this turn to the store's thread.
//! - Wait for the next message or timer, and act on it.

mod cache;
mod contexts;
mod core;
mod crew;
mod deaths;
mod decide;
mod dispatch;
mod dry;
mod evaluate;
mod explain;
mod family;
mod gates;
mod generate;
mod guard;
mod lanes;
mod lineage;
mod lookup;
mod memory;
#[cfg(any(test, fuzzing))]
pub(crate) mod model_tests;
mod pause;
mod publish;
mod race;
mod recall;
mod results;
mod returns;
mod sample;
mod sharing;
mod submitted;
mod time;
mod trust;
mod watch;

pub(crate) use contexts::{Contexts, StateRead};
pub(crate) use core::{Engine, Progressing, Provision};
pub(crate) use crew::Activity;
pub(crate) use dry::Watched;
pub(crate) use submitted::Submissions;
