//! The `forkyard` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    forkyard::init(forkyard::Ops::standard());
    forkyard::main()
}
