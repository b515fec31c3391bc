//! What a dead zygote leaves to us: we are the subreaper of everything below, so its workers and their
//! commands become our children. They are told from a host program's own children by their session, which the zygote has begun
//! (also those that have ended, and have neither an environment nor a name any more), by number (workers), by the name that
//! they have from the zygote (workers that had not told their number), or by the run's token in their environment (commands
//! that have begun a session of their own); and who is in the session of one of these is ours too.

use std::collections::HashSet;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getsid};

/// Kills and waits for those of our children that belong to the pool of this zygote, until none is left.
pub(crate) fn kill_adopted(zygote: Pid, token: &str, workers: &[Pid]) {
    let mut sessions = HashSet::from([zygote]);
    let own = getsid(None);
    loop {
        let is_ours = |pid: &Pid| {
            let is_known = workers.contains(pid) || is_from_zygote(*pid) || has_token(*pid, token);
            is_known || getsid(Some(*pid)).is_ok_and(|session| sessions.contains(&session))
        };
        let ours: Vec<Pid> = children().into_iter().filter(is_ours).collect();
        if ours.is_empty() {
            return;
        }
        let theirs = ours.iter().map(|pid| getsid(Some(*pid))).filter(|session| *session != own);
        sessions.extend(theirs.flatten());
        for pid in ours {
            kill(pid, Signal::SIGKILL).ok();
            // Its own children become ours only now.
            waitpid(pid, None).ok();
        }
    }
}

fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .map(Pid::from_raw)
        .collect()
}

/// Whether a zygote has forked this process, and nothing has been executed in it.
fn is_from_zygote(pid: Pid) -> bool {
    let name = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("comm"));
    name.is_ok_and(|name| matches!(name.trim_end(), "forkyard-worker" | "forkyard-zygote"))
}

/// Whether a process belongs to the run of this token.
pub(crate) fn has_token(pid: Pid, token: &str) -> bool {
    let wanted = format!("FORKYARD_RUN={token}");
    let environment =
        std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}
