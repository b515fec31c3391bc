//! `forkyard import`.

use std::io::Write;

use super::args::{ImportCommand, ImportedOp};
use super::exit::{Exit, Failure, printed};
use crate::wfformat;

pub(super) fn import(command: &ImportCommand) -> Result<Exit, Failure> {
    let ImportCommand::Wfformat { file, time_scale, op } = command;
    let wrong = |why: String| Failure::new(Exit::Usage, format!("{}: {why}", file.display()));
    let trace = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let op = match op {
        ImportedOp::Sleep => "sleep",
        ImportedOp::Spin => "spin",
    };
    let manifest = wfformat::manifest_of(&trace, op, *time_scale).map_err(wrong)?;
    printed(std::io::stdout().lock().write_all(manifest.as_bytes()))
}
