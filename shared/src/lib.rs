//! What both sides of Forkyard's process boundary must agree on: digests, ids, values, messages,
//! mappings, and the formats of artifacts and blobs. The only crate with `unsafe`, behind two
//! fences: [`mapping`] (memory that other processes share) and [`sys`] (system calls).

pub mod ann;
pub mod arena;
pub mod artifact;
pub mod blob;
pub mod codec;
pub mod context;

pub mod digest;
#[doc(hidden)]
pub mod fuzz;
pub mod ids;
mod kernel;
pub mod mapping;
pub mod pack;
pub mod private;
pub mod processes;
pub mod protocol;
pub mod pulse;
pub mod scan;
pub mod sink;
pub mod spin;
pub mod sys;
pub mod value;
