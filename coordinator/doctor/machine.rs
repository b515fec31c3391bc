//! How many workers there can be: processes, open files, cores.

use std::fs;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};
use serde_json::json;

use super::check::{Check, State};
use crate::crew::cores as usable_cores;
use crate::limits::{self, FILES_PER_WORKER, Limit};
use crate::memory::{Machine, Version};
use crate::text;

/// A pool as large as most that are asked for.
const LARGE_POOL: u64 = 100;

pub(super) fn processes(machine: &Machine) -> Check {
    let limits = limits::of_processes(machine);
    let Some(tightest) = limits.iter().min_by_key(|limit| limit.left()) else {
        let meaning = "no limit can be read - nothing is known of how many workers there can be";
        return Check::new("processes", State::Note, json!(null), meaning.into(), "mount /proc");
    };
    let value = json!({ "left": tightest.left(), "tightest": tightest.name, "limits": limits.iter().map(as_json).collect::<Vec<_>>() });
    let Limit { name, most, used, remedy } = tightest;
    let [left, most, used] = [tightest.left(), *most, *used].map(text::count);
    let meaning = format!(
        "{left} more may be started ({name} is {most}, {used} are there) - a worker is one, the command or Python that it runs another"
    );
    // Each worker with its command.
    let state = State::of(tightest.left() / 2, usable_cores() as u64, LARGE_POOL);
    Check::new("processes", state, value, meaning, remedy)
}

fn as_json(limit: &Limit) -> serde_json::Value {
    json!({ "limit": limit.name, "most": limit.most, "used": limit.used })
}

pub(super) fn open_files() -> Check {
    match limits::of_files() {
        Ok(files) => {
            let workers = limits::workers_with(&files);
            let [most, workers_text] = [files.most, workers].map(text::count);
            let meaning = format!(
                "{most} at most - room for {workers_text} workers, {FILES_PER_WORKER} files each; a run raises its soft limit to that by itself"
            );
            let value = json!({ "most": files.most, "used": files.used, "workers": workers });
            let state = State::of(workers, usable_cores() as u64, LARGE_POOL);
            Check::new("open_files", state, value, meaning, files.remedy)
        }
        Err(error) => {
            let meaning = format!("not known ({error})");
            Check::new("open_files", State::Note, json!(null), meaning, "mount /proc")
        }
    }
}

pub(super) fn cores(machine: &Machine) -> Check {
    let usable = usable_cores();
    let online =
        sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().map_or(usable, |online| online as usize);
    let quota = quota(machine);
    let by_quota =
        quota.as_ref().map_or(String::new(), |(cores, name)| format!(", {name} allows {cores:.1}"));
    let meaning = format!(
        "{usable} of {online} are ours{by_quota} - `--workers auto` begins with {}, and adds more while they only wait",
        text::plural(usable, "worker")
    );
    let is_less = usable < online || quota.as_ref().is_some_and(|(cores, _)| *cores < online as f64);
    let state = if is_less { State::Note } else { State::Ok };
    let value = json!({ "usable": usable, "online": online, "quota": quota.map(|(cores, _)| cores) });
    let advice = "nodes that compute need more cores (taskset, cpu.max)";
    Check::new("cores", state, value, meaning, advice)
}

/// The least that a cgroup above us leaves, in cores.
fn quota(machine: &Machine) -> Option<(f64, String)> {
    let cgroup = machine.cgroup("cpu")?;
    let of = |dir: &Path| -> Option<f64> {
        let read = |file: &str| fs::read_to_string(dir.join(file)).ok();
        let (quota, period) = match cgroup.version {
            Version::V1 => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
            Version::V2 => {
                let both = read("cpu.max")?;
                let (quota, period) = both.split_once(' ')?;
                (quota.to_string(), period.to_string())
            }
        };
        // -1 and `max` mean none.
        let [quota, period] = [quota, period].map(|number| number.trim().parse::<u32>().ok());
        Some(f64::from(quota?) / f64::from(period.filter(|period| *period > 0)?))
    };
    let quotas = cgroup.levels.iter().filter_map(|(name, dir)| Some((of(dir)?, name.clone())));
    quotas.min_by(|(a, _), (b, _)| a.total_cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::captured;

    #[test]
    fn the_least_of_all_quotas_counts() {
        assert_eq!(quota(&captured("container-v1")), Some((1.5, "cgroup /docker/0f3c".into())));
        let nested = Some((0.5, "cgroup /user.slice/user-1000.slice".into()));
        assert_eq!(quota(&captured("v2-nested")), nested);
        assert_eq!(quota(&captured("bare")), None);
        assert_eq!(cores(&captured("v2-nested")).state, State::Note);
    }

    #[test]
    fn the_limit_that_leaves_the_least_is_named() {
        let check = processes(&captured("v1-nested"));
        assert_eq!((check.state, &check.value["left"]), (State::Warn, &json!(1)));
        assert!(
            check.meaning.starts_with("1 more may be started (pids.max of cgroup /jobs is 64, 63 are there)")
        );
        assert!(check.advice.unwrap().contains("TasksMax="));
    }
}
