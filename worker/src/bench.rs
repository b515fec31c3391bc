//! A door for `benches/`, which can only use what is public. Not an interface; it changes with the parts behind it.

use std::path::Path;

use crate::command::{self, Command, CommandError, Stdin};
use crate::reap;

/// Runs a program without arguments to its end, keeps what it says, and kills what it leaves, as `exec` does.
///
/// # Errors
/// When it cannot be run.
pub fn run_command(program: &str) -> Result<bool, CommandError> {
    let argv = [program.to_string()];
    let env = [("PATH".into(), "/usr/bin:/bin".into())];
    let command = Command { argv: &argv, cwd: Path::new("/"), env: &env, stdin: Stdin::Empty };
    let finished = command::run(command, &mut Vec::new(), 1 << 20)?;
    reap::kill_children();
    Ok(finished.status.success())
}
