//! Who holds a store's lock at this moment, and sending it a signal. A number in a file proves nothing: its process
//! may be gone, and the number given to a stranger. So the process is held by a descriptor first, and looked at
//! then: a signal goes to the one that was looked at, or to nobody.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use forkyard_shared::sys;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::lock::holder;

/// The process that holds a lock.
pub(crate) struct Live {
    pub pid: u32,
    process: OwnedFd,
}

impl Live {
    /// The one that signed the lock, if it lives and holds it.
    ///
    /// # Errors
    /// When it may not be looked at.
    pub fn holding(lock: &Path) -> io::Result<Option<Live>> {
        let Some(pid) = holder(lock) else { return Ok(None) };
        let process = match sys::pidfd_open(Pid::from_raw(pid as i32)) {
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => return Ok(None),
            process => process?,
        };
        match holds(pid, lock) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(false) => Ok(None),
            Ok(true) => Ok(Some(Live { pid, process })),
        }
    }

    /// Whether it has blocked a signal, which is to say that it waits for it.
    pub fn blocks(&self, signal: Signal) -> bool {
        self.mask("SigBlk:") & (1 << (signal as u32 - 1)) != 0
    }

    /// Whether it ignores a signal, as whoever started it wanted.
    pub fn ignores(&self, signal: Signal) -> bool {
        self.mask("SigIgn:") & (1 << (signal as u32 - 1)) != 0
    }

    fn mask(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended, or is not ours to signal.
    pub fn send(&self, signal: Signal) -> io::Result<()> {
        sys::pidfd_send_signal(&self.process, signal)
    }
}

/// Whether one of a process's open files is this one, locked. (An open file that was inherited is locked too, but
/// nobody below a run has the run's number.)
fn holds(pid: u32, lock: &Path) -> io::Result<bool> {
    let lock = fs::metadata(lock)?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // It may have been closed since.
        let Ok(open) = fs::metadata(entry.path()) else { continue };
        if (open.dev(), open.ino()) != (lock.dev(), lock.ino()) {
            continue;
        }
        let about = Path::new("/proc").join(pid.to_string()).join("fdinfo").join(entry.file_name());
        let about = fs::read_to_string(about).unwrap_or_default();
        if about.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK")) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::lock::Lock;
    use super::*;

    #[test]
    fn only_a_process_that_holds_the_lock_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(Live::holding(&path).unwrap().is_none(), "there is no lock");
        let lock = Lock::take(&path).unwrap();
        let live = Live::holding(&path).unwrap().expect("we hold it");
        assert_eq!(live.pid, std::process::id());
        drop(lock);
        assert!(Live::holding(&path).unwrap().is_none(), "we live, and hold it no more");
        fs::write(&path, i32::MAX.to_string()).unwrap();
        assert!(Live::holding(&path).unwrap().is_none(), "nobody has this number");
    }
}
