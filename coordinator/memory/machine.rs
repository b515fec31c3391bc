//! What memory is left, by level: the machine, and every cgroup above us that has a limit.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroups::{Cgroup, Version};

/// A machine, or a captured tree of its files.
#[derive(Clone)]
pub(crate) struct Machine {
    root: PathBuf,
}

/// What memory there is, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rooms {
    /// The machine first, then our cgroup and those above it, as far as they have a limit.
    pub levels: Vec<Level>,
    /// All memory of the machine.
    pub total: u64,
    pub swap_total: u64,
    pub swap_free: u64,
    /// How many processes of our cgroup (without one: of the machine) were killed for want of memory.
    pub oom_kills: u64,
}

/// Something that limits memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Level {
    /// `the machine` or `cgroup /a/b`.
    pub name: String,
    pub limit: u64,
    /// What nobody uses.
    pub free: u64,
    /// What holds files that the kernel can read again: it gives that up before it kills.
    pub reclaimable: u64,
}

impl Level {
    /// What can be had before the kernel kills.
    pub fn available(&self) -> u64 {
        self.free + self.reclaimable
    }
}

impl Rooms {
    /// What can be had here: as much as the tightest level leaves.
    pub fn available(&self) -> u64 {
        self.tightest().available()
    }

    /// The level that leaves the least.
    pub fn tightest(&self) -> &Level {
        self.levels.iter().min_by_key(|level| level.available()).expect("the machine is a level")
    }

    /// What can be had while so many bytes of artifacts stay in memory: to the kernel they are files like others,
    /// but workers would have to read them again and again.
    pub fn headroom(&self, artifacts: u64) -> u64 {
        let rooms = self.levels.iter().map(|level| level.free + level.reclaimable.saturating_sub(artifacts));
        rooms.min().expect("the machine is a level")
    }
}

/// From here up, v1 means that there is no limit.
pub(super) const NO_LIMIT: u64 = 1 << 62;

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Machine {
        Machine::at(Path::new("/"))
    }

    /// One whose files lie below `root`, as `root/proc/meminfo`.
    pub fn at(root: &Path) -> Machine {
        Machine { root: root.into() }
    }

    /// A file or directory of `/proc`.
    pub(super) fn proc(&self, path: &str) -> PathBuf {
        self.root.join("proc").join(path)
    }

    /// A file's text, such as that of `proc/self/status`.
    pub fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// The number that is all of a file.
    pub fn number(&self, path: &str) -> Option<u64> {
        number(&self.root.join(path))
    }

    /// Our cgroup for a controller.
    pub fn cgroup(&self, controller: &str) -> Option<Cgroup> {
        Cgroup::find(&self.root, controller)
    }

    /// Looks how much memory there is. A cgroup whose files cannot be read is left out.
    ///
    /// # Errors
    /// When `/proc/meminfo` cannot be understood, named in the message.
    pub fn look(&self) -> Result<Rooms, String> {
        let path = self.proc("meminfo");
        let meminfo =
            fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))?;
        let bytes = |name| {
            kilobytes(&meminfo, name).ok_or_else(|| format!("{} has no {name} ... kB", path.display()))
        };
        let (total, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
        let files = bytes("Active(file):")? + bytes("Inactive(file):")?;
        let reclaimable = files.min(available);
        let machine =
            Level { name: "the machine".into(), limit: total, free: available - reclaimable, reclaimable };
        let cgroup = self.cgroup("memory");
        let above = cgroup.iter().flat_map(|cgroup| {
            cgroup.levels.iter().filter_map(|(name, dir)| level(name, dir, cgroup.version, total))
        });
        Ok(Rooms {
            levels: std::iter::once(machine).chain(above).collect(),
            total,
            swap_total: bytes("SwapTotal:")?,
            swap_free: bytes("SwapFree:")?,
            oom_kills: self.oom_kills(cgroup.as_ref()),
        })
    }

    fn oom_kills(&self, cgroup: Option<&Cgroup>) -> u64 {
        let of_cgroup = cgroup.and_then(|cgroup| {
            let file = match cgroup.version {
                Version::V1 => "memory.oom_control",
                Version::V2 => "memory.events",
            };
            counter(&cgroup.dir().join(file), &["oom_kill"])
        });
        // The root of v2 has no such file.
        of_cgroup.or_else(|| counter(&self.proc("vmstat"), &["oom_kill"])).unwrap_or(0)
    }
}

/// A cgroup, if it has a limit.
fn level(name: &str, dir: &Path, version: Version, total: u64) -> Option<Level> {
    let (limits, usage, files) = match version {
        Version::V1 => (
            &["memory.limit_in_bytes"][..],
            "memory.usage_in_bytes",
            ["total_active_file", "total_inactive_file"],
        ),
        Version::V2 => {
            (&["memory.max", "memory.high"][..], "memory.current", ["active_file", "inactive_file"])
        }
    };
    // `max` is no number, and no limit.
    let limits = limits.iter().filter_map(|file| number(&dir.join(file)));
    let limit = limits.min().filter(|limit| *limit < NO_LIMIT && *limit <= total)?;
    let usage = number(&dir.join(usage))?;
    // A soft limit can be passed, and a lowered one too: that much is to be given up first.
    let over = usage.saturating_sub(limit);
    let reclaimable = counter(&dir.join("memory.stat"), &files)?.min(usage).saturating_sub(over);
    Some(Level { name: name.into(), limit, free: limit.saturating_sub(usage), reclaimable })
}

/// A line like `MemTotal:  24684096 kB`, in bytes.
pub(super) fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()? * 1024)
}

/// A file that holds one number.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The sum of some lines like `active_file 4096`; all of them must be there.
pub(super) fn counter(path: &Path, names: &[&str]) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = |wanted: &&str| -> Option<u64> {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| name == wanted)?.1.parse().ok()
    };
    names.iter().map(value).sum()
}

/// A tree in `tests/fixtures/machines`.
#[cfg(test)]
pub(crate) fn captured(name: &str) -> Machine {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/machines").join(name);
    assert!(root.is_dir(), "no tree {name}");
    Machine::at(&root)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// `NAME LIMIT FREE RECLAIMABLE` of each cgroup, in MiB.
    fn cgroups(rooms: &Rooms) -> Vec<String> {
        let mib = |bytes: u64| bytes / MIB;
        let levels = rooms.levels.iter().skip(1);
        levels
            .map(|level| {
                let Level { name, limit, free, reclaimable } = level;
                format!("{name} {} {} {}", mib(*limit), mib(*free), mib(*reclaimable))
            })
            .collect()
    }

    #[test]
    fn a_machine_without_cgroups_is_its_own_limit() {
        let rooms = captured("bare").look().unwrap();
        let machine =
            Level { name: "the machine".into(), limit: 8 * GIB, free: 3 * GIB, reclaimable: 3 * GIB };
        assert_eq!(
            rooms,
            Rooms {
                levels: vec![machine.clone()],
                total: 8 * GIB,
                swap_total: 2 * GIB,
                swap_free: GIB,
                oom_kills: 3,
            }
        );
        assert_eq!((rooms.available(), rooms.tightest()), (6 * GIB, &machine));
        // Artifacts are among the files that the kernel could give up; more of them than that are not in memory.
        assert_eq!([0, GIB, 100 * GIB].map(|bytes| rooms.headroom(bytes)), [6 * GIB, 5 * GIB, 3 * GIB]);
    }

    #[test]
    fn every_cgroup_above_us_that_has_a_limit_is_a_level() {
        let rooms = captured("v1-nested").look().unwrap();
        assert_eq!(cgroups(&rooms), ["cgroup /jobs/job-7 1024 424 250", "cgroup /jobs 4096 3072 300"]);
        assert_eq!((rooms.available(), rooms.oom_kills), (674 * MIB, 2));
        assert_eq!(rooms.tightest().name, "cgroup /jobs/job-7");
        assert_eq!(rooms.headroom(200 * MIB), 474 * MIB);

        let rooms = captured("v2-nested").look().unwrap();
        assert_eq!(cgroups(&rooms), ["cgroup /user.slice/user-1000.slice 2048 1024 512"]);
        assert_eq!(rooms.oom_kills, 4);
    }

    #[test]
    fn a_soft_limit_that_was_passed_leaves_the_files_but_for_what_is_too_much() {
        let rooms = captured("v2-high").look().unwrap();
        assert_eq!(cgroups(&rooms), ["cgroup /job 512 0 212"]);
    }

    #[test]
    fn a_container_sees_its_own_part() {
        let rooms = captured("container-v1").look().unwrap();
        assert_eq!(cgroups(&rooms), ["cgroup /docker/0f3c/worker 128 64 16", "cgroup /docker/0f3c 256 6 96"]);
        assert_eq!((rooms.available(), rooms.oom_kills), (80 * MIB, 1));
        // Of two levels with artifacts to keep, the other one may be the tighter.
        assert_eq!(rooms.headroom(96 * MIB), 6 * MIB);

        let rooms = captured("container-v2-namespace").look().unwrap();
        assert_eq!((cgroups(&rooms), rooms.oom_kills), (vec!["cgroup / 512 384 64".to_string()], 2));
    }

    #[test]
    fn the_hierarchy_that_has_the_controller_counts() {
        let rooms = captured("hybrid").look().unwrap();
        assert_eq!(cgroups(&rooms), ["cgroup /box/one 512 412 30"], "a limit above the machine's is none");
    }

    #[test]
    fn what_makes_no_sense_is_left_out_and_a_machine_without_memory_is_named() {
        let rooms = captured("garbled").look().unwrap();
        assert_eq!((cgroups(&rooms), rooms.oom_kills), (vec!["cgroup / 2048 1948 30".to_string()], 3));
        let empty = tempfile::tempdir().unwrap();
        let look = |meminfo: &str| {
            fs::create_dir_all(empty.path().join("proc")).unwrap();
            fs::write(empty.path().join("proc/meminfo"), meminfo).unwrap();
            Machine::at(empty.path()).look().unwrap_err()
        };
        assert!(
            look("MemTotal: 8 kB\nMemAvailable: much\n").ends_with("/meminfo has no MemAvailable: ... kB")
        );
        let nowhere = Machine::at(&empty.path().join("nowhere")).look().unwrap_err();
        assert!(
            nowhere.ends_with("nowhere/proc/meminfo: No such file or directory (os error 2)"),
            "{nowhere}"
        );
    }

    /// A cgroup of ours, gone with this.
    struct Child(PathBuf);

    impl Child {
        /// None where we may not make one.
        fn new(limit: u64) -> Option<Child> {
            let ours = Machine::here().cgroup("memory")?;
            let child = ours.dir().join(format!("forkyard-test-{}", std::process::id()));
            fs::create_dir(&child).ok()?;
            let child = Child(child);
            let file = match ours.version {
                Version::V1 => "memory.limit_in_bytes",
                Version::V2 => "memory.max",
            };
            fs::write(child.0.join(file), limit.to_string()).ok()?;
            Some(child)
        }
    }

    impl Drop for Child {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).unwrap();
        }
    }

    const INSIDE: &str = "FORKYARD_TEST_INSIDE";

    #[test]
    fn the_limit_of_a_real_cgroup_is_seen_from_inside() {
        if std::env::var_os(INSIDE).is_some() {
            let rooms = Machine::here().look().unwrap();
            let level = &rooms.levels[1];
            assert!(level.name.contains("/forkyard-test-"), "{level:?}");
            assert_eq!(level.limit, 256 * MIB);
            assert!(level.free <= 256 * MIB && level.available() > 128 * MIB, "{level:?}");
            assert_eq!((rooms.tightest(), rooms.oom_kills), (level, 0));
            return;
        }
        let Some(child) = Child::new(256 * MIB) else {
            eprintln!("skipped: no cgroup with a memory limit can be made here");
            return;
        };
        // This very test again, as a process of the cgroup.
        let (_, tests) = module_path!().split_once("::").unwrap();
        let output = Command::new("sh")
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&child.0)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{tests}::the_limit_of_a_real_cgroup_is_seen_from_inside")])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}
