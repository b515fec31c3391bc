//! What memory is: how much of it this machine and the cgroups above us leave, and what a process has for itself.
//! All of it is read from `/proc` and `/sys/fs/cgroup`, below a root of one's choice: tests look at captured trees.
//! Ignorant of workers and of what is to be done about memory.

mod alarms;
mod budget;
mod cgroups;
mod fences;
mod machine;
mod processes;

pub(crate) use alarms::Alarms;
pub(crate) use budget::{Budget, PYTHON_BYTES, WORKER_BYTES};
pub(crate) use cgroups::Version;
pub(crate) use fences::Fences;
#[cfg(test)]
pub(crate) use machine::captured;
pub(crate) use machine::{Machine, Rooms};
