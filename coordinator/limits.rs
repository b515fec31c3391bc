//! How many processes and open files the system allows, and with them how many workers.

use std::fs;
use std::io;

use forkyard_shared::sys;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, getuid};

use crate::memory::Machine;
use crate::text;

/// Descriptors that a worker takes in the coordinator: the way to it and its doorbell.
pub(crate) const FILES_PER_WORKER: u64 = 2;

/// Descriptors that a run needs beside those of its workers: the store, the arena, one more a fork.
const FILES_OF_A_RUN: u64 = 16;

/// Threads that a run has yet to start once it has its pool; the kernel counts them as processes.
const THREADS_OF_A_RUN: u64 = 2;

/// Something that may not grow past a number.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub name: String,
    pub most: u64,
    pub used: u64,
    pub remedy: &'static str,
}

impl Limit {
    pub fn left(&self) -> u64 {
        self.most.saturating_sub(self.used)
    }
}

/// From now on this process may have as many files open and threads, and the zygote as many processes, as they could
/// ask for. The zygote's own files, and with them those of commands, keep the limit they were born with.
pub(crate) fn raise(zygote: Pid) -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // A sandbox may refuse this: then there are fewer workers, and that is said.
    sys::raise_process_limit(Pid::this()).and_then(|()| sys::raise_process_limit(zygote)).ok();
    Ok(())
}

/// How many workers a run that has its pool can still start, and the limit that says so. None where no limit can be
/// found.
pub(crate) fn workers_allowed() -> Option<(usize, String)> {
    let processes = of_processes(&Machine::here()).into_iter();
    let processes = processes.map(|limit| (limit.left().saturating_sub(THREADS_OF_A_RUN), limit));
    let files = of_files().ok().map(|limit| (workers_with(&limit), limit));
    let (workers, limit) = processes.chain(files).min_by_key(|(workers, _)| *workers)?;
    let most = text::count(limit.most);
    Some((workers as usize, format!("{} ({most}, {} in use)", limit.name, text::count(limit.used))))
}

/// How many workers open files allow.
pub(crate) fn workers_with(files: &Limit) -> u64 {
    files.left().saturating_sub(FILES_OF_A_RUN) / FILES_PER_WORKER
}

/// The files that this process may have open once [`raise`] was called, and has.
pub(crate) fn of_files() -> io::Result<Limit> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // One of them is the directory that is being read.
    let used = fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64;
    let remedy = "raise the hard limit (ulimit -Hn; LimitNOFILE= of a service; docker run --ulimit nofile=N)";
    Ok(Limit { name: "RLIMIT_NOFILE".into(), most, used, remedy })
}

/// Everything that limits how many processes there may be, as far as it can be read.
pub(crate) fn of_processes(machine: &Machine) -> Vec<Limit> {
    let all = tasks(machine);
    let mut limits: Vec<Limit> = of_user(machine, all).into_iter().collect();
    for (name, remedy) in [
        ("kernel.pid_max", "raise it: sysctl kernel.pid_max=4194304"),
        ("kernel.threads-max", "raise it: sysctl kernel.threads-max=N"),
    ] {
        let most = machine.number(&format!("proc/sys/{}", name.replace('.', "/")));
        if let (Some(most), Some(used)) = (most, all) {
            limits.push(Limit { name: name.into(), most, used, remedy });
        }
    }
    let cgroup = machine.cgroup("pids");
    for (name, dir) in cgroup.iter().flat_map(|cgroup| &cgroup.levels) {
        let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok();
        // `max` is no number, and no limit.
        if let (Some(most), Some(used)) = (number("pids.max"), number("pids.current")) {
            let name = format!("pids.max of {name}");
            let remedy = "raise it there (TasksMax= of a service; docker run --pids-limit N)";
            limits.push(Limit { name, most, used, remedy });
        }
    }
    limits
}

/// Whether processes are only counted if all of the machine's, and so many more, would not do.
const PLENTY: u64 = 20_000;

/// What the user may have; the kernel counts threads. None if it does not bind us.
fn of_user(machine: &Machine, all: Option<u64>) -> Option<Limit> {
    if is_exempt(machine) {
        return None;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NPROC).ok().filter(|(_, most)| *most != RLIM_INFINITY)?;
    // Counting looks at every process.
    let used = match all {
        Some(all) if all.saturating_add(PLENTY) <= most => all,
        _ => threads_of(machine, getuid().as_raw()),
    };
    let remedy =
        "raise the hard limit (ulimit -Hu; nproc in /etc/security/limits.conf; LimitNPROC= of a service)";
    Some(Limit { name: format!("RLIMIT_NPROC of user {}", getuid()), most, used, remedy })
}

/// Whether the kernel lets us have more processes than RLIMIT_NPROC: it asks for the first user namespace's root, or
/// for one of two capabilities there.
fn is_exempt(machine: &Machine) -> bool {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let first_namespace = machine
        .text("proc/self/uid_map")
        .is_some_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
    let status = machine.text("proc/self/status").unwrap_or_default();
    let capabilities = field(&status, "CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    let is_able = capabilities.is_some_and(|mask| mask & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0);
    let is_root = field(&status, "Uid:").is_some_and(|uid| uid == "0");
    first_namespace && (is_able || is_root)
}

/// How many threads there are on the machine.
fn tasks(machine: &Machine) -> Option<u64> {
    // `0.20 0.18 0.12 1/80 11206`: of 80, one runs.
    machine.text("proc/loadavg")?.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// How many threads a user has, as far as we can see.
fn threads_of(machine: &Machine, user: u32) -> u64 {
    let threads = |pid: u32| -> Option<u64> {
        let status = machine.text(&format!("proc/{pid}/status"))?;
        let uid: u32 = field(&status, "Uid:")?.parse().ok()?;
        field(&status, "Threads:")?.parse().ok().filter(|_| uid == user)
    };
    machine.children().into_values().flatten().filter_map(threads).sum()
}

/// The first word of a line of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::captured;

    #[test]
    fn every_limit_of_processes_is_found() {
        let limits = of_processes(&captured("v1-nested"));
        let found: Vec<_> =
            limits.iter().map(|limit| (limit.name.as_str(), limit.most, limit.left())).collect();
        // Root of the first user namespace: RLIMIT_NPROC does not bite.
        assert_eq!(
            found,
            [
                ("kernel.pid_max", 32_768, 32_688),
                ("kernel.threads-max", 1_000, 920),
                ("pids.max of cgroup /jobs", 64, 1),
            ]
        );
    }

    #[test]
    fn root_is_exempt_in_the_first_user_namespace_only() {
        assert!(is_exempt(&captured("v1-nested")), "root");
        assert!(is_exempt(&captured("v2-nested")), "a capability");
        assert!(!is_exempt(&captured("container-v1")), "a namespace of its own");
        assert!(!is_exempt(&captured("v2-high")), "a user");
        assert!(!is_exempt(&captured("garbled")));
    }

    #[test]
    fn threads_are_counted_by_user() {
        let machine = captured("v1-nested");
        assert_eq!([0, 1000, 7].map(|user| threads_of(&machine, user)), [2, 1, 0]);
        assert_eq!((tasks(&machine), tasks(&captured("garbled"))), (Some(80), None));
    }

    #[test]
    fn files_leave_room_for_what_a_run_needs_itself() {
        let files = |most, used| workers_with(&Limit { name: "files".into(), most, used, remedy: "" });
        assert_eq!([files(1024, 8), files(24, 8), files(27, 8), files(8, 9)], [500, 0, 1, 0]);
        let (workers, name) = workers_allowed().unwrap();
        assert!(workers > 0 && name.contains(" in use)"), "{workers} by {name}");
    }
}
