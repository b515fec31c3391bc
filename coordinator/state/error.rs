//! What can go wrong with the state.

use std::fmt;

use forkyard_shared::arena::ArenaError;
use forkyard_shared::context::Rank;

/// Why the state could not do as told. A context that existed before is what it was.
#[derive(Debug)]
pub enum StateError {
    /// The arena failed.
    Arena(ArenaError),
    /// A writer writes once.
    WrittenTwice(Rank),
    /// A value longer than a version can say.
    TooLong {
        /// Its key.
        key: String,
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StateError::Arena(error) => write!(f, "write the state: {error}"),
            StateError::WrittenTwice(rank) => {
                write!(f, "write the state: rank {} has written before", rank.0)
            }
            StateError::TooLong { key, bytes } => {
                write!(f, "write the state: the value of {key:?} has {bytes} bytes; 4 GiB is the most")
            }
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StateError::Arena(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ArenaError> for StateError {
    fn from(error: ArenaError) -> StateError {
        StateError::Arena(error)
    }
}
