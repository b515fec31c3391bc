//! What can be wrong with a store.

use std::fmt;
use std::io;
use std::path::PathBuf;

use forkyard_shared::blob::BlobError;
use rusqlite::ErrorCode;

use super::format::FORMAT;
use super::lock::LockError;

/// Why a store cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no store here.
    Missing(PathBuf),
    /// The lock cannot be had.
    Lock(PathBuf, LockError),
    /// It was made by a later version of Forkyard.
    Newer(PathBuf, u64),
    /// Somebody else can change it; why.
    Foreign(PathBuf, String),
    /// A file or directory of it cannot be used.
    Io(String, io::Error),
    /// The database cannot be used.
    Database(PathBuf, rusqlite::Error),
    /// Bytes do not match their digest.
    Damaged(String),
    /// Whoever wanted a value does not take it.
    Output(io::Error),
}

impl StoreError {
    /// What a run says that it ends, and how to go on.
    pub(super) fn ends_run(&self) -> String {
        match self {
            StoreError::Database(_, error) if is_malformed(error) => self.to_string(),
            _ if self.is_for_want_of_room() => {
                format!("{self}; what is committed stays, make room and run again to go on")
            }
            _ => format!("{self}; what is committed stays, run again to go on"),
        }
    }

    fn is_for_want_of_room(&self) -> bool {
        match self {
            StoreError::Io(_, error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Database(_, error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            _ => false,
        }
    }
}

/// Whether the database itself is at fault: what we ask of a sound one is never a mistake.
pub(super) fn is_malformed(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown))
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            StoreError::Missing(dir) => write!(
                f,
                "there is no store at {}: `forkyard run` makes one, `--store DIR` names another",
                dir.display()
            ),
            StoreError::Lock(dir, error) => write!(f, "store {}: {error}", dir.display()),
            StoreError::Newer(dir, format) => write!(
                f,
                "store {} has format {format}, this forkyard knows format {FORMAT}: use the forkyard that made it, or name another --store",
                dir.display()
            ),
            StoreError::Foreign(dir, why) => write!(
                f,
                "store {} {why}: whoever can change a store decides what a run returns; name one of your own with --store",
                dir.display()
            ),
            StoreError::Io(what, error) => write!(f, "{what}: {error}"),
            StoreError::Database(path, error) if is_malformed(error) => {
                write!(f, "database {}: {error}; run `forkyard store verify`", path.display())
            }
            StoreError::Database(path, error) => write!(f, "database {}: {error}", path.display()),
            StoreError::Damaged(what) => f.write_str(what),
            StoreError::Output(error) => write!(f, "write a value: {error}"),
        }
    }
}

impl StoreError {
    /// Whether there is no room on its disk.
    pub fn is_full(&self) -> bool {
        match self {
            StoreError::Io(_, error) | StoreError::Output(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StoreError::Database(_, error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    /// Whether what was to be read is damaged or not there, and not only out of reach.
    pub fn is_loss(&self) -> bool {
        match self {
            StoreError::Damaged(_) => true,
            StoreError::Io(_, error) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io(_, error) | StoreError::Output(error) => Some(error),
            StoreError::Database(_, error) => Some(error),
            StoreError::Lock(_, error) => Some(error),
            StoreError::Missing(_)
            | StoreError::Foreign(..)
            | StoreError::Newer(..)
            | StoreError::Damaged(_) => None,
        }
    }
}

impl From<BlobError> for StoreError {
    fn from(error: BlobError) -> StoreError {
        match error {
            BlobError::Unreadable { path, error } => {
                StoreError::Io(format!("read blob {}", path.display()), error)
            }
            BlobError::Write(error) => StoreError::Output(error),
            damaged @ BlobError::Damaged { .. } => StoreError::Damaged(damaged.to_string()),
        }
    }
}
