//! Kills whatever a task left running. Ignorant of tasks and workers: it knows children, and which of
//! them are to live.
//!
//! The caller is a subreaper, so the children of whom it kills become its own, whatever session or
//! group they moved to. Killing groups instead would miss exactly those.

use std::fs;
use std::path::Path;

use forkyard_shared::processes;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// Kills and waits for every child of this process, which must have one thread.
pub fn kill_children() {
    kill_strangers(Vec::new);
}

/// The same for every child that is not `known`, again and again until none is left. Who is known is asked after the
/// children were counted. Returns how many had to be killed: children that had ended already are only waited for.
pub fn kill_strangers(mut known: impl FnMut() -> Vec<Pid>) -> usize {
    let mut killed = 0;
    loop {
        // One call, where reading the list takes four and more: most tasks leave nothing.
        if !has_children() {
            return killed;
        }
        let mut strangers = children();
        let known = known();
        strangers.retain(|child| !known.contains(child));
        if strangers.is_empty() {
            return killed;
        }
        // All are told before any is waited for, so that they end at the same time.
        for child in &strangers {
            // A child keeps its number until it is waited for: this cannot hit a stranger.
            kill(*child, Signal::SIGKILL).ok();
        }
        killed += strangers.into_iter().filter(|child| was_killed(*child)).count();
    }
}

/// Waits for a child; whether it was killed.
fn was_killed(child: Pid) -> bool {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            // Other errors: it is gone already, or ended by a signal that nix has no name for.
            status => return matches!(status, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))),
        }
    }
}

/// Whether this process has any child, one that has ended and was not waited for included.
fn has_children() -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    waitid(Id::All, flags) != Err(Errno::ECHILD)
}

fn children() -> Vec<Pid> {
    match fs::read_to_string("/proc/thread-self/children") {
        Ok(list) => list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect(),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => children_by_scan(),
    }
}

fn children_by_scan() -> Vec<Pid> {
    let me = std::process::id();
    let ours = processes::parents(Path::new("/proc")).filter(|(_, parent)| *parent == me);
    ours.map(|(child, _)| Pid::from_raw(child as i32)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;

    // The kernel lists children by the thread that made them, and each test has a thread of its own:
    // the children of other tests are out of reach.

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(child.id() as i32)
    }

    #[test]
    fn only_known_children_survive() {
        let (mut known, stranger, other) = (sleeper(), sleeper(), sleeper());
        assert_eq!(kill_strangers(|| vec![pid(&known)]), 2);
        assert!(known.try_wait().unwrap().is_none(), "a known child was killed");
        for gone in [stranger, other] {
            assert_eq!(waitpid(pid(&gone), None), Err(Errno::ECHILD), "it was not waited for");
        }
        assert_eq!(kill_strangers(Vec::new), 1);
    }

    #[test]
    fn a_child_that_had_ended_is_waited_for_and_not_counted() {
        let pid = pid(&Command::new("true").spawn().unwrap());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert_eq!(kill_strangers(Vec::new), 0);
        assert_eq!(waitpid(pid, None), Err(Errno::ECHILD));
    }

    #[test]
    fn the_scan_finds_what_the_list_finds() {
        let mut child = sleeper();
        assert_eq!(children(), [pid(&child)]);
        assert!(children_by_scan().contains(&pid(&child)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!children_by_scan().contains(&pid(&child)));
    }
}
