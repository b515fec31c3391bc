//! A check, and all of them.

use std::path::Path;

use serde_json::Value;

use super::{kernel, machine, memory, place};
use crate::memory::Machine;

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It will bite.
    Warn,
    /// It may bite.
    Note,
    /// It will not.
    Ok,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Warn => "warn",
            State::Note => "note",
            State::Ok => "ok",
        }
    }

    /// By a number of which more is better.
    pub(super) fn of(number: u64, warn_below: u64, note_below: u64) -> State {
        match number {
            n if n < warn_below => State::Warn,
            n if n < note_below => State::Note,
            _ => State::Ok,
        }
    }
}

/// Something that Forkyard relies on, looked at.
#[derive(Debug)]
pub(crate) struct Check {
    /// What was looked at: a name for programs.
    pub check: &'static str,
    pub state: State,
    /// What was found, for programs.
    pub value: Value,
    /// What was found and what it means, for people.
    pub meaning: String,
    /// What to do, unless all is well.
    pub advice: Option<String>,
}

impl Check {
    pub(super) fn new(
        check: &'static str,
        state: State,
        value: Value,
        meaning: String,
        advice: &str,
    ) -> Check {
        let advice = (state != State::Ok).then(|| advice.to_string());
        Check { check, state, value, meaning, advice }
    }
}

/// Looks at everything; the worst first.
///
/// # Errors
/// When not even `/proc/meminfo` can be read.
pub(crate) fn examine(store: &Path) -> Result<Vec<Check>, String> {
    let here = Machine::here();
    let rooms = here.look()?;
    let mut checks = vec![
        memory::memory(&rooms),
        memory::oom_kills(&rooms),
        memory::swap(&here, &rooms),
        machine::processes(&here),
        machine::open_files(),
        machine::cores(&here),
        place::store(store),
        place::disk(store),
        place::python(),
        kernel::memory_files(),
        kernel::address_space(),
        kernel::pressure(),
        kernel::peaks(),
        memory::cgroups(&here),
    ];
    checks.extend(memory::overcommit(&here));
    checks.extend(memory::huge_pages(&here));
    checks.sort_by_key(|check| check.state);
    Ok(checks)
}
