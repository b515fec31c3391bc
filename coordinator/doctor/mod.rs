//! What of this machine will bite, and what to do about it: one check a thing that Forkyard relies on. Each does the
//! very thing, small, where it can; and undoes it. Ignorant of how checks are printed.

mod check;
mod kernel;
mod machine;
mod memory;
mod place;

pub(crate) use check::{Check, State, examine};
