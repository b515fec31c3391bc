//! Exit codes: an interface, documented in `--help`, the README and `docs/manifest.md`.

use std::fmt;
use std::process::ExitCode;

use nix::sys::signal::Signal;

use crate::run::RunError;
use crate::store::StoreError;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Exit {
    /// Every node is done.
    Ok,
    /// Some nodes failed, timed out or are blocked.
    NodesFailed,
    /// The command line or the manifest is wrong; nothing ran.
    Usage,
    /// An artifact is missing, malformed or changed.
    Artifact,
    /// The store is unusable: disk full, damaged, locked by a live run.
    Store,
    /// It does not fit: into memory, or what was to be printed onto its disk.
    Resources,
    /// A bug of ours, or the zygote was killed.
    Bug,
    /// Interrupted by a signal.
    Interrupted(Signal),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::NodesFailed => 1,
            Exit::Usage => 2,
            Exit::Artifact => 3,
            Exit::Store => 4,
            Exit::Resources => 5,
            Exit::Bug => 70,
            Exit::Interrupted(signal) => 128 + signal as u8,
        })
    }
}

/// Why a command could not do what it was asked.
pub(super) struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure { exit, message: message.to_string() }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::new(Exit::Store, error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Failure {
        let exit = match &error {
            RunError::Manifest(_) | RunError::Usage(_) | RunError::Python(_) => Exit::Usage,
            RunError::Artifact(_) => Exit::Artifact,
            RunError::Open(_) | RunError::Store(_) => Exit::Store,
            RunError::Memory(_) | RunError::Pool(_) => Exit::Resources,
            RunError::Interrupted(signal) => Exit::Interrupted(*signal),
            RunError::ZygoteDied | RunError::PythonDied(_) | RunError::Internal(_) => Exit::Bug,
        };
        Failure::new(exit, error)
    }
}

/// The end of a command whose only work was to print. Whoever closed the pipe has seen enough.
pub(super) fn printed(result: std::io::Result<()>) -> Result<Exit, Failure> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Resources, format!("write to stdout: {error}")))
        }
        _ => Ok(Exit::Ok),
    }
}
