//! The state that nodes share, written: contexts, the versions of keys, what each node wrote. The layout
//! and the reading are in `forkyard_shared::context`. Knows nothing of nodes, only of ranks.

mod epochs;
mod error;
mod keys;
mod sets;
#[cfg(test)]
mod tests;
mod versions;
mod writer;

pub use epochs::Ticket;
pub use error::StateError;
pub use writer::State;
