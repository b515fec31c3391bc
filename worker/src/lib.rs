//! The processes below the coordinator: the zygote's loop, the worker's loop, and the ops that tasks
//! run. Knows nothing of graphs, manifests or the store's database.

mod attach;
#[doc(hidden)]
pub mod bench;
mod command;
mod log;
mod meter;
mod op;
mod ops;
pub mod params;
mod python;
mod reap;
mod registry;
mod secrets;
mod state;
mod task;
mod work;
pub mod zygote;

pub use op::{Failed, Op, Output};
pub use python::{MODULE as PYTHON_MODULE, environment as python_environment};
pub use registry::Ops;
pub use state::State;
pub use task::Task;
