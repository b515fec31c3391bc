//! Who is whose child, by a scan of `/proc`. For kernels and questions that the lists of children
//! (`/proc/PID/task/TID/children`) do not serve: those need CONFIG_PROC_CHILDREN, and one read a thread.

use std::fs;
use std::path::Path;

/// Every process with its parent, from a directory like `/proc`. A process that ends meanwhile is left out.
pub fn parents(proc: &Path) -> impl Iterator<Item = (u32, u32)> {
    fs::read_dir(proc).into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, parent_in(&fs::read(entry.path().join("stat")).ok()?)?))
    })
}

/// The parent of a process, from a directory like `/proc`; none if there is no such process.
pub fn parent(proc: &Path, pid: u32) -> Option<u32> {
    parent_in(&fs::read(proc.join(pid.to_string()).join("stat")).ok()?)
}

/// The parent in a line of `/proc/PID/stat`: `PID (NAME) STATE PARENT ...`. The name may hold anything,
/// parentheses and broken UTF-8 too.
fn parent_in(stat: &[u8]) -> Option<u32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in(b"12 (a) S 99 (\xff) R 7 12 12"), Some(7));
        assert_eq!(parent_in(b"12 (a"), None);
    }

    #[test]
    fn this_process_has_its_parent() {
        let ours = (std::process::id(), std::os::unix::process::parent_id());
        assert!(parents(Path::new("/proc")).any(|found| found == ours));
    }
}
