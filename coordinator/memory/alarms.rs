//! Has the kernel wake us when memory gets short: by pressure (PSI), and by what cgroups tell. Where it gives none of
//! these, whoever wants to know has to look.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::cgroups::Version;
use super::machine::{Machine, NO_LIMIT};

/// Tasks waited for memory for a tenth of a second within one. (Microseconds.)
const PRESSURE: &[u8] = b"some 100000 1000000\0";

/// The parts of a limit at which a v1 cgroup tells.
const USED: [f64; 3] = [0.8, 0.88, 0.94];

/// What the kernel wakes us with.
#[derive(Default)]
pub(crate) struct Alarms {
    /// PSI triggers, and `memory.events` of v2: something is to be read, urgently.
    urgent: Vec<File>,
    /// v1: readable.
    counted: Vec<EventFd>,
}

impl Alarms {
    /// All that can be had on this machine.
    pub fn set(machine: &Machine) -> Alarms {
        let mut alarms = Alarms::default();
        let cgroup = machine.cgroup("memory");
        let of_cgroup = cgroup.as_ref().map(|cgroup| cgroup.dir().join("memory.pressure"));
        let places = of_cgroup.into_iter().chain([machine.proc("pressure/memory")]);
        alarms.urgent.extend(places.filter_map(|path| pressure(&path)).take(1));
        for (_, dir) in cgroup.iter().flat_map(|cgroup| &cgroup.levels) {
            match cgroup.as_ref().map(|cgroup| cgroup.version) {
                Some(Version::V1) => alarms.counted.extend(thresholds(dir)),
                _ => alarms.urgent.extend(File::open(dir.join("memory.events")).ok()),
            }
        }
        alarms
    }

    /// Waits for the next; false if there will be none, or it is `over`.
    pub fn wait(&self, over: &EventFd) -> bool {
        let urgent = self.urgent.iter().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLPRI));
        let counted = self.counted.iter().map(|event| PollFd::new(event.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd> = urgent.chain(counted).collect();
        if fds.is_empty() {
            return false;
        }
        fds.push(PollFd::new(over.as_fd(), PollFlags::POLLIN));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        let is_over = fds.last().is_some_and(|over| over.any().unwrap_or(true));
        let gone = is_over || fds.iter().any(|fd| fd.revents().is_some_and(|told| told.intersects(GONE)));
        // What was told is read, else it is told again at once.
        self.urgent.iter().for_each(|file| drop(file.read_at(&mut [0; 512], 0)));
        self.counted.iter().for_each(|event| {
            event.read().ok();
        });
        !gone
    }
}

/// The cgroup was removed, or the kernel has nothing more to say.
const GONE: PollFlags = PollFlags::POLLERR.union(PollFlags::POLLNVAL);

fn pressure(path: &Path) -> Option<File> {
    let mut file = File::options().read(true).write(true).open(path).ok()?;
    file.write_all(PRESSURE).ok()?;
    Some(file)
}

/// Has a v1 cgroup tell when it has used these parts of its limit.
fn thresholds(dir: &Path) -> Vec<EventFd> {
    let limit = std::fs::read_to_string(dir.join("memory.limit_in_bytes")).ok();
    let limit = limit.and_then(|limit| limit.trim().parse::<u64>().ok());
    let Some(limit) = limit.filter(|limit| *limit < NO_LIMIT) else { return Vec::new() };
    let tell = |part: &f64| {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
        let usage = File::open(dir.join("memory.usage_in_bytes")).ok()?;
        let (event_fd, usage_fd) = (event.as_fd().as_raw_fd(), usage.as_raw_fd());
        let line = format!("{event_fd} {usage_fd} {}", (limit as f64 * part) as u64);
        std::fs::write(dir.join("cgroup.event_control"), line).ok()?;
        Some(event)
    };
    USED.iter().filter_map(tell).collect()
}
