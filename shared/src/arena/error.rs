//! What can go wrong with the arena.

use std::{fmt, io};

/// Why the arena could not do as told.
#[derive(Debug)]
#[non_exhaustive]
pub enum ArenaError {
    /// No memory for another block.
    Full {
        /// How large the block was to be.
        wanted_bytes: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// An offset that names nothing in the arena.
    NoSuchPlace {
        /// The offset.
        at: u64,
        /// How many bytes it was to name.
        len: usize,
    },
    /// Bytes that are not what their place says they are.
    Malformed {
        /// Where they are.
        at: u64,
        /// What they should be.
        what: &'static str,
    },
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ArenaError::Full { wanted_bytes, cause } => {
                write!(f, "no shared memory for {wanted_bytes} more bytes: {cause}")
            }
            ArenaError::NoSuchPlace { at, len } => {
                write!(f, "the arena has no {len} bytes at offset {at}")
            }
            ArenaError::Malformed { at, what } => write!(f, "no {what} at offset {at} of the arena"),
        }
    }
}

impl std::error::Error for ArenaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ArenaError::Full { cause, .. } => Some(cause),
            _ => None,
        }
    }
}
