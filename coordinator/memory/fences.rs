//! Memory limits that the kernel keeps: a cgroup for each worker that runs a task with a limit. Where we may not make any,
//! there are none, and somebody has to watch instead.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use forkyard_shared::ids::WorkerId;

use super::cgroups::Version;
use super::machine::{Machine, counter};

/// What a limit leaves for what is no task's: page tables, buffers of sockets.
const SLACK: u64 = 4 << 20;

/// How our cgroups are called, before the number of the process that made them.
const PREFIX: &str = "forkyard-";

/// The cgroups of workers.
pub(crate) struct Fences {
    /// Our own cgroup.
    above: Option<(PathBuf, Version)>,
    fences: HashMap<WorkerId, Fence>,
}

struct Fence {
    dir: PathBuf,
    version: Version,
    is_closed: bool,
    /// Processes that the kernel had killed in it when it was closed.
    kills: u64,
}

impl Fences {
    /// Nothing is made yet. What a coordinator left that was killed is removed.
    pub fn new(machine: &Machine) -> Fences {
        let above = machine.cgroup("memory").map(|cgroup| (cgroup.dir().to_path_buf(), cgroup.version));
        if let Some((dir, _)) = &above {
            for left in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = left.file_name();
                let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
                let pid = pid.and_then(|(pid, _)| pid.parse::<u32>().ok());
                if pid.is_some_and(|pid| !machine.proc(&pid.to_string()).exists()) {
                    fs::remove_dir(left.path()).ok();
                }
            }
        }
        Fences { above, fences: HashMap::new() }
    }

    /// What these processes of a worker take from now on is limited, and what they start; false if that cannot be.
    pub fn close(&mut self, worker: WorkerId, processes: &[u32], limit: u64) -> bool {
        if !self.fences.contains_key(&worker) {
            let made = self.above.as_ref().and_then(|(above, version)| Fence::make(above, *version, worker));
            let Some(fence) = made else {
                // It will not be otherwise the next time.
                self.above = None;
                return false;
            };
            self.fences.insert(worker, fence);
        }
        self.fences.get_mut(&worker).is_some_and(|fence| fence.close(processes, limit + SLACK).is_ok())
    }

    /// The worker runs something else.
    pub fn open(&mut self, worker: WorkerId) {
        if let Some(fence) = self.fences.get_mut(&worker).filter(|fence| fence.is_closed) {
            fence.open();
        }
    }

    /// Whether the kernel keeps a limit of what the worker runs.
    pub fn is_closed(&self, worker: WorkerId) -> bool {
        self.fences.get(&worker).is_some_and(|fence| fence.is_closed)
    }

    /// Whether the kernel has killed somebody behind it since it was closed.
    pub fn has_killed(&self, worker: WorkerId) -> bool {
        self.fences.get(&worker).is_some_and(|fence| fence.is_closed && fence.kills_now() > fence.kills)
    }

    /// There is nobody behind it any more.
    pub fn gone(&mut self, worker: WorkerId) {
        self.fences.remove(&worker);
    }
}

impl Fence {
    fn make(above: &Path, version: Version, worker: WorkerId) -> Option<Fence> {
        if version == Version::V2 {
            // Refused where processes are in our own cgroup, which is usual.
            fs::write(above.join("cgroup.subtree_control"), "+memory").ok()?;
        }
        let dir = above.join(format!("{PREFIX}{}-{}", std::process::id(), worker.0));
        match fs::create_dir(&dir) {
            // Somebody was still ending in it when it was to be removed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.ok()?,
        }
        let fence = Fence { dir, version, is_closed: false, kills: 0 };
        let swap = match version {
            Version::V1 => "memory.swappiness",
            Version::V2 => "memory.swap.max",
        };
        fs::write(fence.dir.join(swap), "0").ok();
        Some(fence)
    }

    fn close(&mut self, processes: &[u32], limit: u64) -> std::io::Result<()> {
        fs::write(self.limit(), limit.to_string())?;
        for process in processes {
            fs::write(self.dir.join("cgroup.procs"), process.to_string())?;
        }
        (self.is_closed, self.kills) = (true, self.kills_now());
        Ok(())
    }

    fn open(&mut self) {
        let none = match self.version {
            Version::V1 => "-1",
            Version::V2 => "max",
        };
        fs::write(self.limit(), none).ok();
        self.is_closed = false;
    }

    fn limit(&self) -> PathBuf {
        self.dir.join(match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        })
    }

    fn kills_now(&self) -> u64 {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        counter(&self.dir.join(file), &["oom_kill"]).unwrap_or(0)
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        // Who still lives goes back to where it came from: a cgroup with processes cannot be removed.
        let living = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        let above = self.dir.join("../cgroup.procs");
        living.lines().for_each(|process| drop(fs::write(&above, process)));
        fs::remove_dir(&self.dir).ok();
    }
}
