//! What a run shows while it goes on: events for programs, progress for people, a trace for both. The
//! engine tells [`Report`] what happens and knows nothing of who listens.

mod events;
mod progress;
mod tell;
mod trace;

pub(crate) use events::EventsWanted;
pub(crate) use tell::{Finished, Ran, Report, ReportOptions, Status};
