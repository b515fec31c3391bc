//! What is there after a run that was not there before: processes, descriptors, shared memory, files.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use crate::memory::Machine;
use crate::sweep;

/// What there was before.
pub(super) struct Traces {
    files: HashMap<String, usize>,
    shared: Vec<String>,
}

/// What a run left behind, by name.
pub(crate) struct Leaks {
    pub processes: Vec<String>,
    pub descriptors: Vec<String>,
    pub mappings: Vec<String>,
    pub tmp_files: Vec<String>,
    pub shared_memory: Vec<String>,
}

impl Traces {
    pub fn now() -> Traces {
        Traces { files: open_files(), shared: shared_memory() }
    }

    /// What is there now, after a run with this token in the environment of its commands and with this store.
    pub fn compare(&self, token: &str, store: &Path) -> Leaks {
        let mut known = self.files.clone();
        let is_new = |(file, count): (String, usize)| {
            let more = count.saturating_sub(known.remove(&file).unwrap_or(0));
            std::iter::repeat_n(file, more).collect::<Vec<_>>()
        };
        let own = std::process::id().to_string();
        let shared = shared_memory().into_iter().filter(|name| !self.shared.contains(name));
        Leaks {
            processes: processes(token),
            descriptors: open_files().into_iter().flat_map(is_new).collect(),
            mappings: memory_files(),
            tmp_files: names(&store.join("tmp")),
            // Others make names there too.
            shared_memory: shared.filter(|name| name.contains(&own) || name.contains("forkyard")).collect(),
        }
    }
}

impl Leaks {
    pub fn lists(&self) -> [(&'static str, &[String]); 5] {
        [
            ("processes", &self.processes),
            ("descriptors", &self.descriptors),
            ("mappings", &self.mappings),
            ("tmp_files", &self.tmp_files),
            ("shared_memory", &self.shared_memory),
        ]
    }

    pub fn is_empty(&self) -> bool {
        self.lists().iter().all(|(_, list)| list.is_empty())
    }

    pub fn evidence(&self) -> String {
        let left = self.lists().into_iter().filter(|(_, list)| !list.is_empty());
        let left: Vec<String> = left.map(|(what, list)| format!("{what}: {}", list.join(", "))).collect();
        if left.is_empty() { "no process, descriptor, shared memory or file".into() } else { left.join("; ") }
    }
}

/// Our children, and whoever has the token in its environment.
fn processes(token: &str) -> Vec<String> {
    let own = std::process::id();
    let children = Machine::here().children();
    let of_us = children.get(&own).into_iter().flatten().copied();
    let of_run = children
        .values()
        .flatten()
        .copied()
        .filter(|pid| sweep::has_token(Pid::from_raw(*pid as i32), token));
    let mut found: Vec<u32> = of_us.chain(of_run).filter(|pid| *pid != own).collect();
    found.sort_unstable();
    found.dedup();
    found.iter().map(u32::to_string).collect()
}

/// What our descriptors stand for, and how many for each.
fn open_files() -> HashMap<String, usize> {
    let mut files = HashMap::new();
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    // The directory that is being read is gone when it is looked at.
    for target in entries.filter_map(|entry| fs::read_link(entry.path()).ok()) {
        let target = target.display().to_string();
        if !target.ends_with(&format!("/proc/{}/fd", std::process::id())) {
            *files.entry(target).or_default() += 1;
        }
    }
    files
}

/// Files without a name that we have mapped.
fn memory_files() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(|line| Some(line[line.find("/memfd:")?..].into())).collect()
}

fn shared_memory() -> Vec<String> {
    names(Path::new("/dev/shm"))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
