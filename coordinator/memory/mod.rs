//! What memory is: how much of it this machine and the cgroups above us leave, and what a process has for itself.
//! All of it is read from `/proc` and `/sys/fs/cgroup`, below a root of one's choice: tests look at captured trees.
//! Ignorant of workers and of what is to be done about memory.

mod cgroups;
mod machine;
mod processes;

pub(crate) use machine::{Level, Machine, Rooms};
pub(crate) use processes::Private;
