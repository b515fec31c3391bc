//! Tables: Arrow IPC and Parquet, decoded once into bytes that workers and Python see in place.

mod column;
mod contain;
mod ipc;
mod parquet;
mod write;

#[cfg(test)]
mod tests;

pub use column::{Column, Table};
pub(super) use ipc::read_arrow;
pub(super) use parquet::read_parquet;
