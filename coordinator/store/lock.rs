//! One run at a time: a `flock` on `lock`. The zygote and its workers inherit the open file, so that the
//! lock is free only when the whole pool of a dead coordinator is gone, and never has to be removed.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::threads;
use forkyard_shared::private;

/// The lock, held.
pub(crate) struct Lock(File);

/// Why a store's lock cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Another run holds it.
    Held {
        /// The coordinator of that run, if it wrote its number down.
        pid: Option<u32>,
    },
    /// The file cannot be made or locked.
    Io(std::io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            LockError::Held { pid: Some(pid) } => write!(
                f,
                "process {pid} is using this store (a run, or a verify or gc); wait for it, or stop it with `kill {pid}`"
            ),
            LockError::Held { pid: None } => write!(f, "another process is using this store"),
            LockError::Io(error) => write!(f, "lock the store: {error}"),
        }
    }
}

impl std::error::Error for LockError {}

/// How long the pool of a dead coordinator may take to disappear.
const GRACE: Duration = Duration::from_secs(5);

impl Lock {
    /// Takes the lock. If its last holder is dead but something of its pool is not yet gone, waits a
    /// few seconds for that.
    pub fn take(path: &Path) -> Result<Lock, LockError> {
        let file = private::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder(path);
                if pid.is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists()) || !wait(&file)? {
                    return Err(LockError::Held { pid });
                }
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let mut lock = Lock(file);
        lock.sign().map_err(LockError::Io)?;
        Ok(lock)
    }

    fn sign(&mut self) -> std::io::Result<()> {
        self.0.set_len(0)?;
        write!(self.0, "{}", std::process::id())
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the lock in a thread of its own, because the system call has no time limit. A thread that
/// waits in vain ends with the process, which has nothing else to do then.
fn wait(file: &File) -> Result<bool, LockError> {
    let file = file.try_clone().map_err(LockError::Io)?;
    let (done, locked) = mpsc::channel();
    threads::start("lock", move || done.send(file.lock())).map_err(LockError::Io)?;
    match locked.recv_timeout(GRACE) {
        Ok(result) => result.map(|()| true).map_err(LockError::Io),
        Err(_) => Ok(false),
    }
}

/// The process that signed the lock last.
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
