//! The processes below the coordinator: the zygote's loop, the worker's loop, and the ops that tasks
//! run. Knows nothing of graphs, manifests or the store's database.

mod attach;
mod command;
mod log;
pub mod op;
mod ops;
mod reap;
mod task;
mod work;
pub mod zygote;

pub use op::{Failed, Op, Ops, Output};
pub use reap::kill_children_except;
pub use task::Task;
