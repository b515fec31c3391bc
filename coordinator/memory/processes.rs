//! What a process has for itself: memory, and time in which it wanted a core and had none.

use std::collections::HashMap;
use std::fs;

use forkyard_shared::processes;

use super::machine::{Machine, kilobytes};

/// Memory that would be free without a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Private {
    /// Pages of no file. Those that a fork left shared with other processes are counted in each of them.
    pub anonymous: u64,
    pub page_tables: u64,
}

impl Private {
    pub fn bytes(&self) -> u64 {
        self.anonymous + self.page_tables
    }
}

/// What the kernel counts the time of children in: it says a hundred a second to everybody.
const TICK_NS: u64 = 10_000_000;

impl Machine {
    /// What a process has for itself, cheaply: from counters. None if it has ended.
    pub fn private_of(&self, pid: u32) -> Option<Private> {
        // One file, instead of `statm` (resident - shared is the same number) beside it.
        let status = fs::read_to_string(self.proc(&format!("{pid}/status"))).ok()?;
        let bytes = |name| kilobytes(&status, name);
        Some(Private { anonymous: bytes("RssAnon:")?, page_tables: bytes("VmPTE:")? })
    }

    /// The pages that no other process has: exact after a fork too, but the kernel looks at every page for it.
    pub fn exact_private(&self, pid: u32) -> Option<u64> {
        let rollup = fs::read_to_string(self.proc(&format!("{pid}/smaps_rollup"))).ok()?;
        let private = rollup.lines().filter(|line| line.starts_with("Private_"));
        let bytes = private.filter_map(|line| kilobytes(line, line.split_once(' ')?.0));
        bytes.reduce(|a, b| a + b)
    }

    /// The pages of a process, those that it shares in equal parts (PSS).
    pub fn proportional(&self, pid: u32) -> Option<u64> {
        kilobytes(&fs::read_to_string(self.proc(&format!("{pid}/smaps_rollup"))).ok()?, "Pss:")
    }

    /// What a process has copied of each of these files (by device and inode) where it has mapped them, in bytes.
    pub fn copied_of(&self, pid: u32, files: &[(u64, u64)]) -> Option<Vec<u64>> {
        let maps = fs::read_to_string(self.proc(&format!("{pid}/smaps"))).ok()?;
        let (mut copied, mut at) = (vec![0; files.len()], None);
        for line in maps.lines() {
            if let Some(of) = mapped_file(line) {
                at = files.iter().position(|file| *file == of);
            } else if let Some(at) = at {
                copied[at] += kilobytes(line, "Anonymous:").unwrap_or(0);
            }
        }
        Some(copied)
    }

    /// A line like `Pss:  12 kB` of a file of `/proc`, in bytes.
    pub fn kilobytes_of(&self, path: &str, name: &str) -> Option<u64> {
        kilobytes(&fs::read_to_string(self.proc(path)).ok()?, name)
    }

    /// How often a process was given a page, without and with reading it from a disk; those of its children that it has
    /// waited for count.
    pub fn faults(&self, pid: u32) -> Option<(u64, u64)> {
        let stat = fs::read_to_string(self.proc(&format!("{pid}/stat"))).ok()?;
        // After the name, which may hold anything: state, parent, and then as in proc_pid_stat(5).
        let numbers: Vec<u64> =
            stat.rsplit_once(") ")?.1.split(' ').map(|number| number.parse().unwrap_or(0)).collect();
        Some((numbers.get(7)? + numbers.get(8)?, numbers.get(9)? + numbers.get(10)?))
    }

    /// All processes by their parent.
    pub fn children(&self) -> HashMap<u32, Vec<u32>> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, parent) in processes::parents(&self.proc("")) {
            children.entry(parent).or_default().push(pid);
        }
        children
    }

    /// For how many nanoseconds the children ran that a process has waited for, with theirs.
    pub fn children_time(&self, pid: u32) -> Option<u64> {
        let stat = fs::read_to_string(self.proc(&format!("{pid}/stat"))).ok()?;
        // What comes before may hold anything; from the state on: user and system time are the 14th and 15th field.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = fields.get(13)?.parse::<u64>().ok()? + fields.get(14)?.parse::<u64>().ok()?;
        Some(ticks * TICK_NS)
    }

    /// For how many nanoseconds the threads that a process has now have run, and for how many they waited for a core.
    pub fn schedstat(&self, pid: u32) -> Option<(u64, u64)> {
        let threads = fs::read_dir(self.proc(&format!("{pid}/task"))).ok()?.flatten();
        let times = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok());
            Some((numbers.next()??, numbers.next()??))
        });
        times.reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// The file in the first line of a mapping: `FROM-TO RIGHTS OFFSET MAJOR:MINOR INODE PATH`.
fn mapped_file(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    fields.next()?.split_once('-')?;
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some((nix::sys::stat::makedev(hex(major)?, hex(minor)?), fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::machine::captured;
    use super::*;

    #[test]
    fn what_a_process_has_for_itself() {
        let machine = captured("v1-nested");
        let private = machine.private_of(41).unwrap();
        assert_eq!(private, Private { anonymous: 5000 << 10, page_tables: 548 << 10 });
        assert_eq!(private.bytes(), 5548 << 10);
        assert_eq!(machine.exact_private(41), Some(3000 << 10));
        assert_eq!(machine.schedstat(41), Some((1500, 250)));
        // One that has ended and was not waited for, one that is not there, and nonsense.
        assert_eq!((machine.private_of(43), machine.private_of(99)), (None, None));
        assert_eq!((machine.exact_private(43), machine.schedstat(43)), (None, None));
        let garbled = captured("garbled");
        assert_eq!(
            (garbled.private_of(8), garbled.exact_private(8), garbled.schedstat(8)),
            (None, None, None)
        );
    }

    #[test]
    fn copies_of_mapped_files_are_found() {
        let copied =
            |pid| captured("v1-nested").copied_of(pid, &[(nix::sys::stat::makedev(0xfe, 0), 77), (1, 2)]);
        assert_eq!(copied(41), Some(vec![12 << 20, 0]));
        assert_eq!(copied(43), None);
    }

    #[test]
    fn children_are_found_by_one_scan() {
        let mut children = captured("v1-nested").children();
        children.values_mut().for_each(|children| children.sort());
        assert_eq!(
            children,
            HashMap::from([(0, vec![1]), (1, vec![39]), (39, vec![40]), (40, vec![41, 43])])
        );
        assert!(captured("garbled").children().is_empty());
    }

    #[test]
    fn this_very_process_is_seen() {
        let (machine, pid) = (Machine::here(), std::process::id());
        assert!(machine.private_of(pid).unwrap().page_tables > 0);
        assert!(machine.exact_private(pid).unwrap() > 0);
        assert!(machine.schedstat(pid).unwrap().0 > 0);
        assert!(machine.children_time(pid).is_some() && machine.children_time(u32::MAX).is_none());
        assert!(machine.children()[&std::os::unix::process::parent_id()].contains(&pid));
    }
}
