//! Where our cgroup of a controller is: its directory, and those above it as far as they are mounted.
//!
//! `/proc/self/cgroup` names the cgroup by its path in a hierarchy, `/proc/self/mountinfo` says which part of which
//! hierarchy is mounted where. In a container the mounted part may begin at the container's own cgroup; with a cgroup
//! namespace both paths are relative to the namespace's, and what lies outside begins with `/..`.

use std::fs;
use std::path::{Path, PathBuf};

/// The two interfaces of cgroups: their files have other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Our cgroup of one controller.
#[derive(Debug, PartialEq)]
pub(crate) struct Cgroup {
    pub version: Version,
    /// Names and directories: ours first, then those above it, up to the root of the mount.
    pub levels: Vec<(String, PathBuf)>,
}

impl Cgroup {
    /// The cgroup of a process for a controller such as `memory`; none where there are no cgroups, or where ours is
    /// out of sight.
    pub fn find(root: &Path, controller: &str) -> Option<Cgroup> {
        let (version, path) =
            membership(&fs::read_to_string(root.join("proc/self/cgroup")).ok()?, controller)?;
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
        let mut mounts: Vec<_> = mounts.lines().filter_map(|line| mount(line, version, controller)).collect();
        // Of two mounts in one place the later one hides the other.
        mounts.reverse();
        let seen = mounts.iter().filter_map(|(mounted, at)| {
            let levels = levels(&path, mounted, &root.join(at.strip_prefix('/')?))?;
            levels[0].1.is_dir().then_some(Cgroup { version, levels })
        });
        // A bind mount may show a part of what another mount shows.
        seen.reduce(|a, b| if b.levels.len() > a.levels.len() { b } else { a })
    }

    /// The directory of our own cgroup, or of the nearest above it that can be seen.
    pub fn dir(&self) -> &Path {
        &self.levels[0].1
    }
}

/// Our path in the hierarchy that has this controller: in `ID:CONTROLLER,...:PATH`, or in `0::PATH`. A controller is
/// in a v1 hierarchy if any names it, whatever a v2 hierarchy is mounted beside it.
fn membership(list: &str, controller: &str) -> Option<(Version, String)> {
    let lines = || list.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let v1 = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == controller));
    let v2 = || Some((Version::V2, lines().find(|(controllers, _)| controllers.is_empty())?.1));
    let (version, path) = v1.map(|(_, path)| (Version::V1, path)).or_else(v2)?;
    Some((version, path.to_string()))
}

/// What part of a hierarchy a line of mountinfo mounts, and where:
/// `ID PARENT DEVICE PART PLACE OPTIONS ... - TYPE SOURCE SUPER_OPTIONS`.
fn mount(line: &str, version: Version, controller: &str) -> Option<(String, String)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut file_system = file_system.split(' ');
    let has_it = match (file_system.next()?, version) {
        ("cgroup2", Version::V2) => true,
        ("cgroup", Version::V1) => file_system.nth(1)?.split(',').any(|one| one == controller),
        _ => false,
    };
    let mut fields = mount.split(' ').skip(3).map(unescaped);
    Some((fields.next()?, fields.next()?)).filter(|_| has_it)
}

/// Spaces, tabs, line ends and backslashes are written in octal, as `\040`.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_string(), |field, (code, character)| field.replace(code, character))
}

/// From the cgroup at `path` to the one at `mounted`, which is mounted at `place`. None if it is not below that.
fn levels(path: &str, mounted: &str, place: &Path) -> Option<Vec<(String, PathBuf)>> {
    let ((path_up, path), (mounted_up, mounted)) = (split(path), split(mounted));
    let below: &[&str] = match path_up.cmp(&mounted_up) {
        std::cmp::Ordering::Equal => path.strip_prefix(&mounted[..])?,
        // What is mounted is above the namespace, and with it above us, by ways whose names nobody tells.
        std::cmp::Ordering::Less if mounted.is_empty() => &[],
        _ => return None,
    };
    let level = |depth: usize| {
        let names: Vec<&str> = mounted.iter().chain(&below[..depth]).copied().collect();
        let dir = below[..depth].iter().fold(place.to_path_buf(), |dir, name| dir.join(name));
        (format!("cgroup {}/{}", "/..".repeat(mounted_up), names.join("/")), dir)
    };
    Some((0..=below.len()).rev().map(level).collect())
}

/// How often a path goes up first, and the names after that.
fn split(path: &str) -> (usize, Vec<&str>) {
    let mut names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let up = names.iter().take_while(|name| **name == "..").count();
    (up, names.split_off(up))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(path: &str, mounted: &str) -> Option<Vec<String>> {
        let levels = levels(path, mounted, Path::new("/m"))?;
        Some(levels.into_iter().map(|(name, dir)| format!("{name} at {}", dir.display())).collect())
    }

    fn is(levels: &[&str]) -> Option<Vec<String>> {
        Some(levels.iter().map(|level| level.to_string()).collect())
    }

    #[test]
    fn what_is_mounted_may_begin_anywhere() {
        assert_eq!(seen("/a/b", "/"), is(&["cgroup /a/b at /m/a/b", "cgroup /a at /m/a", "cgroup / at /m"]));
        assert_eq!(seen("/a/b", "/a"), is(&["cgroup /a/b at /m/b", "cgroup /a at /m"]));
        assert_eq!(seen("/", "/"), is(&["cgroup / at /m"]));
        assert_eq!(seen("/ab", "/a"), None, "a name is not a part of another");
        assert_eq!(seen("/b", "/a"), None);
    }

    #[test]
    fn what_is_mounted_may_be_outside_the_namespace() {
        assert_eq!(seen("/../x/y", "/../x"), is(&["cgroup /../x/y at /m/y", "cgroup /../x at /m"]));
        assert_eq!(seen("/a", "/../.."), is(&["cgroup /../../ at /m"]));
        assert_eq!(seen("/../x", "/"), None, "we are outside what is mounted");
        assert_eq!(seen("/a", "/../x"), None, "a sibling, for all that is known");
    }

    #[test]
    fn a_controller_is_in_one_hierarchy() {
        let hybrid = "4:memory:/m\n3:cpu,cpuacct:/c:d\n1:name=systemd:/s\n0::/u\n";
        let of = |controller| membership(hybrid, controller);
        assert_eq!(of("memory"), Some((Version::V1, "/m".into())));
        assert_eq!(of("cpu"), Some((Version::V1, "/c:d".into())));
        assert_eq!(of("pids"), Some((Version::V2, "/u".into())));
        assert_eq!(membership("4:memory:/m\n", "pids"), None);
        assert_eq!(membership("nonsense", "memory"), None);
    }

    #[test]
    fn mounts_are_told_by_type_and_controllers() {
        let v1 = "35 31 0:32 /a\\040b /sys/fs/cgroup/cpu,memory rw shared:9 - cgroup cgroup rw,cpu,memory";
        let v2 = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";
        let found = |line, version| mount(line, version, "memory");
        assert_eq!(found(v1, Version::V1), Some(("/a b".into(), "/sys/fs/cgroup/cpu,memory".into())));
        assert_eq!(found(v2, Version::V2), Some(("/".into(), "/sys/fs/cgroup/unified".into())));
        assert_eq!((found(v1, Version::V2), found(v2, Version::V1)), (None, None));
        assert_eq!(mount(v1, Version::V1, "pids"), None);
        assert_eq!(found("35 31 0:32 /", Version::V1), None);
    }
}
