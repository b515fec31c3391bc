//! Python functions as tasks. One interpreter a run, the *Python zygote*, imports what is to be shared and forks a
//! child for each worker that asks for one; a worker and its child are one from then on, and end together.
//!
//! ```text
//! zygote ── starts ──> Python zygote          one socket pair: artifacts and setup down; ready, and the numbers of
//!   │                      │                  children, up; the workers inherit our end and ask with it
//!   ├── worker <── tasks, answers ── child    forked by a process that ends at once, so that the zygote is its parent
//! ```
//!
//! - [`host`] is the zygote's side: it starts the interpreter and knows which child belongs to which worker.
//! - [`child`] is the worker's side: descriptors, and waiting for them.
//! - [`wire`] is what goes over them.
//! - [`flights`] are the tasks that are in the child's hands.
//! - `forkyard.py` is the other side of all of it.

mod child;
mod flights;
mod host;
mod wire;

pub(crate) use child::NoChild;
pub(crate) use flights::{Ended, Flights, Gone, Unsent};
pub use host::environment;
pub(crate) use host::{Host, Kin};

/// The module `forkyard` for Python: what functions see of their run, and a client of the command.
pub static MODULE: &str = include_str!("forkyard.py");

/// How a worker exits whose Python process has ended.
pub(crate) const CHILD_ENDED: i32 = 71;
