//! How much memory workers can have, and who takes it away again.

use std::fs;

use serde_json::json;

use super::check::{Check, State};
use crate::memory::{Machine, Rooms, Version};
use crate::text;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(super) fn memory(rooms: &Rooms) -> Check {
    let levels: Vec<String> = rooms
        .levels
        .iter()
        .map(|level| {
            format!("{} of {} in {}", text::bytes(level.available()), text::bytes(level.limit), level.name)
        })
        .collect();
    let (tightest, available) = (rooms.tightest(), rooms.available());
    let state = match available {
        _ if available < 512 * MIB || available < tightest.limit / 20 => State::Warn,
        _ if available < tightest.limit / 5 || tightest.limit < rooms.total => State::Note,
        _ => State::Ok,
    };
    let meaning = format!(
        "{} - artifacts count once, however many workers; what workers have for themselves must fit too",
        levels.join(", ")
    );
    let advice = if tightest.limit < rooms.total {
        format!("{} is the tightest: raise its limit if the machine's memory is to be used", tightest.name)
    } else {
        "end what needs it, or ask for fewer workers".into()
    };
    let value = json!({
        "available": available,
        "tightest": tightest.name,
        "levels": rooms.levels.iter().map(|level| json!({
            "level": level.name, "limit": level.limit, "free": level.free, "reclaimable": level.reclaimable,
        })).collect::<Vec<_>>(),
    });
    Check::new("memory", state, value, meaning, &advice)
}

pub(super) fn oom_kills(rooms: &Rooms) -> Check {
    let kills = rooms.oom_kills;
    let state = if kills == 0 { State::Ok } else { State::Note };
    let meaning = match kills {
        0 => "none - no process here was killed for want of memory".into(),
        _ => format!("{} - so many processes here were killed for want of memory before", text::count(kills)),
    };
    let advice = "dmesg says which; fewer workers need less";
    Check::new("oom_kills", state, json!(kills), meaning, advice)
}

pub(super) fn swap(machine: &Machine, rooms: &Rooms) -> Check {
    let (total, used) = (rooms.swap_total, rooms.swap_total.saturating_sub(rooms.swap_free));
    let swappiness = machine.number("proc/sys/vm/swappiness");
    let state = match used {
        _ if used > rooms.total / 10 => State::Warn,
        _ if used > 64 * MIB => State::Note,
        _ => State::Ok,
    };
    let meaning = match total {
        0 => "none - too much memory ends a worker at once, and does not slow down all of them".into(),
        _ => format!(
            "{} of {} in use, vm.swappiness {} - workers that are swapped out look like slow ones",
            text::bytes(used),
            text::bytes(total),
            swappiness.map_or("unknown".into(), |number| number.to_string())
        ),
    };
    let value = json!({ "total": total, "used": used, "swappiness": swappiness });
    let advice = "more is asked for than there is: fewer workers, or end what else needs memory; sysctl vm.swappiness=10";
    Check::new("swap", state, value, meaning, advice)
}

/// None where the kernel does not say.
pub(super) fn overcommit(machine: &Machine) -> Option<Check> {
    let mode = machine.number("proc/sys/vm/overcommit_memory")?;
    let meminfo = machine.text("proc/meminfo")?;
    let bytes = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    let left =
        bytes("CommitLimit:").zip(bytes("Committed_AS:")).map(|(limit, used)| limit.saturating_sub(used));
    let (state, meaning) = match (mode, left) {
        (2, Some(left)) => (
            State::of(left, GIB, u64::MAX),
            format!(
                "vm.overcommit_memory is 2, {} may still be asked for - every fork asks for all that its parent has for itself, used or not",
                text::bytes(left)
            ),
        ),
        _ => (State::Ok, format!("vm.overcommit_memory is {mode} - a fork costs what it changes")),
    };
    let value = json!({ "mode": mode, "left": left.filter(|_| mode == 2) });
    let advice = "sysctl vm.overcommit_memory=0, or raise vm.overcommit_ratio";
    Some(Check::new("overcommit", state, value, meaning, advice))
}

/// Large pages of files, and of memory files.
pub(super) fn huge_pages(machine: &Machine) -> impl Iterator<Item = Check> {
    const DIR: &str = "/sys/kernel/mm/transparent_hugepage";
    // `always [madvise] never`: the one in brackets.
    let chosen = |file: &str| {
        let text = machine.text(&format!("{}/{file}", &DIR[1..]))?;
        Some(text.split_once('[')?.1.split_once(']')?.0.to_string())
    };
    let check = |check, file: &str, what: &str, may: &[&str], advice: String| {
        let chosen = chosen(file);
        let may = chosen.as_deref().is_some_and(|chosen| may.contains(&chosen));
        let word = chosen.as_deref().unwrap_or("not in this kernel");
        let meaning = match may {
            true => format!("{word} - page tables of {what} stay small where the pages come in large"),
            false => format!(
                "{word} - page tables of {what} take 2 MiB a GiB in each worker: of a hundred workers, 200 MiB a GiB"
            ),
        };
        let state = if may { State::Ok } else { State::Note };
        Check::new(check, state, json!(chosen), meaning, &advice)
    };
    let echo = |word: &str, file: &str| format!("as root: echo {word} > {DIR}/{file}");
    // What is pinned is written, and not mapped, when its pages are made: `advise` does not reach them.
    let pinned = format!("do not pin what is large, or {}", echo("always", "shmem_enabled"));
    [
        check("huge_pages", "enabled", "artifacts", &["always", "madvise"], echo("madvise", "enabled")),
        check(
            "huge_pages_pinned",
            "shmem_enabled",
            "artifacts with `pin = true`",
            &["always", "force"],
            pinned,
        ),
    ]
    .into_iter()
}

/// Whether a cgroup with a limit of its own can be made below ours.
pub(super) fn cgroups(machine: &Machine) -> Check {
    let advice = "a limit from outside does the same: systemd-run --user --scope -p MemoryMax=8G forkyard ..., docker run --memory 8g";
    let none = |why: String| {
        let meaning = format!("{why} - nothing but the machine and what is above us limits a run's memory");
        Check::new("cgroup", State::Note, json!(false), meaning, advice)
    };
    let Some(ours) = machine.cgroup("memory") else {
        return none("no memory cgroup of ours can be seen".into());
    };
    let child = ours.dir().join(format!("forkyard-doctor-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&child) {
        return none(format!("none can be made below {} ({error})", ours.levels[0].0));
    }
    let file = match ours.version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    };
    let limited = fs::write(child.join(file), GIB.to_string());
    fs::remove_dir(&child).ok();
    match limited {
        Ok(()) => {
            let meaning = format!("{} can have others below it - with limits of their own", ours.levels[0].0);
            Check::new("cgroup", State::Ok, json!(true), meaning, advice)
        }
        Err(error) => none(format!("those below {} have no limits of memory ({error})", ours.levels[0].0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::captured;

    fn memory_of(name: &str) -> Check {
        memory(&captured(name).look().unwrap())
    }

    #[test]
    fn the_tightest_level_decides() {
        let bare = memory_of("bare");
        assert_eq!((bare.state, &bare.value["tightest"]), (State::Ok, &json!("the machine")));
        let nested = memory_of("v1-nested");
        assert_eq!((nested.state, &nested.value["available"]), (State::Note, &json!(674 * MIB)));
        let advice = nested.advice.unwrap();
        assert!(advice.starts_with("cgroup /jobs/job-7 is the tightest"), "{advice}");
        assert!(
            nested
                .meaning
                .starts_with("6.0 GiB of 8.0 GiB in the machine, 674.0 MiB of 1.0 GiB in cgroup /jobs")
        );
        assert_eq!(memory_of("v2-high").state, State::Warn);
    }

    #[test]
    fn swap_in_use_is_a_warning() {
        let bare = captured("bare");
        let swap = swap(&bare, &bare.look().unwrap());
        assert_eq!((swap.state, &swap.value["used"]), (State::Warn, &json!(GIB)));
        assert!(
            swap.meaning.starts_with("1.0 GiB of 2.0 GiB in use, vm.swappiness 60 - "),
            "{}",
            swap.meaning
        );
        let kills = oom_kills(&bare.look().unwrap());
        assert_eq!((kills.state, kills.value), (State::Note, json!(3)));
    }

    #[test]
    fn a_kernel_that_counts_what_is_asked_for_is_named() {
        let strict = overcommit(&captured("bare")).unwrap();
        assert_eq!((strict.state, strict.value), (State::Warn, json!({ "mode": 2, "left": 512 * MIB })));
        assert!(overcommit(&captured("hybrid")).is_none());
    }

    #[test]
    fn large_pages_of_files_and_of_memory_files_are_two_things() {
        let of =
            |name| huge_pages(&captured(name)).map(|check| (check.state, check.value)).collect::<Vec<_>>();
        assert_eq!(of("bare"), [(State::Ok, json!("madvise")), (State::Note, json!("advise"))]);
        assert_eq!(of("hybrid"), [(State::Note, json!(null)), (State::Note, json!(null))]);
    }
}
