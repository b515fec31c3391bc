//! The pool inside another program: nodes from any thread, results as tickets.
//!
//! A pool is a run that goes on: its nodes come from a queue in place of a manifest, and the same engine looks them
//! up, sends them to workers and deals with what goes wrong. The engine has a thread of its own (`session`), and is driven
//! by callers where that saves waking it (`wheel`).

mod builder;
mod error;
mod handle;
mod node;
mod session;
mod ticket;
mod wheel;

pub use builder::{Builder, Workers};
pub use error::{StartError, SubmitError, TaskError, ValueError};
pub use handle::Pool;
pub use node::Node;
pub use ticket::{Ticket, Value};

pub(crate) use handle::Shared;
pub(crate) use node::{Request, Shape, Submission};
pub(crate) use ticket::{Answer, Body, Done, Slot};
