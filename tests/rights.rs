//! Who may do what: nobody else reads a store, nobody else's is used, and a worker can change nothing that others read.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::unistd::geteuid;
use serde_json::Value;

use crate::util::{RUN, Space};

/// Results of all sizes, in rows and in files, a context, a paused run's mark, a scratch directory.
const ALL_SORTS: &str = r#"
[run]
layout = "LAYOUT"
[artifacts.bytes]
path = "bytes"
[[node]]
id = "small"
op = "value"
params = { value = 7 }
publish = { seven = "{{ result }}" }
[[node]]
id = "large"
op = "bytes"
artifact = "bytes"
params = { offset = 0, length = 100000 }
[[node]]
id = "command"
op = "exec"
run = ["sh", "-c", "umask; stat -c %a $FORKYARD_SCRATCH $FORKYARD_INPUT_LARGE; touch mine; stat -c %a mine"]
inputs = { large = "{{ nodes.large.result }}" }
"#;

#[test]
fn a_store_is_its_owners_alone_whatever_the_umask() {
    for layout in ["hybrid", "sqlite", "filesystem"] {
        let space = Space::with(&ALL_SORTS.replace("LAYOUT", layout));
        space.write("bytes", (0..100_000u64).map(|n| (n * n % 251) as u8).collect::<Vec<u8>>());
        let line = format!("umask 000; exec {} run m.toml --quiet", env!("CARGO_BIN_EXE_forkyard"));
        space.start_shell(&line).end().expect(0);
        let mut seen = 0;
        everything_in(&space.path(".forkyard"), &mut |path, mode| {
            assert_eq!(mode & 0o077, 0, "{layout}: {} has mode {mode:o}", path.display());
            seen += 1;
        });
        assert!(seen > 10, "{layout}: {seen} files and directories");
        // The command itself has the user's umask, and what it makes is none of ours.
        assert_eq!(space.result_text("command"), "0000\n700\n400\n666\n", "{layout}");
    }
}

fn everything_in(dir: &Path, look: &mut dyn FnMut(&Path, u32)) {
    look(dir, fs::metadata(dir).unwrap().mode());
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            everything_in(&entry.path(), look);
        } else {
            look(&entry.path(), metadata.mode());
        }
    }
}

#[test]
fn a_store_that_others_can_change_is_refused() {
    let space = Space::with("[[node]]\nid = \"a\"\nop = \"noop\"\n");
    space.run_manifest(0);
    fs::set_permissions(space.path(".forkyard"), PermissionsExt::from_mode(0o777)).unwrap();
    for command in [&["run", "m.toml"][..], &["store", "gc", "--keep-runs", "1"]] {
        space.run(command).expect(4).says("may be written to by everybody (`chmod o-w` changes that)");
    }
    fs::set_permissions(space.path(".forkyard"), PermissionsExt::from_mode(0o700)).unwrap();
    if !geteuid().is_root() {
        println!("skipped: only root can give a store to another user");
        return;
    }
    chown(space.path(".forkyard"), Some(65_534), None).unwrap();
    let before = fs::metadata(space.path(".forkyard/lock")).unwrap().mtime();
    space.run_manifest(4).says("belongs to another user (number 65534): whoever can change a store");
    assert_eq!(fs::metadata(space.path(".forkyard/lock")).unwrap().mtime(), before);
}

/// Looks at the process that started it: what that has mapped and open, what it may become, with whom it could speak. Then
/// tries to change whatever lies in memory that it shares.
const SPY: &str = r#"
import json, mmap, os
worker = os.getppid()
maps = [line.split(None, 5) for line in open(f"/proc/{worker}/maps")]
shared = sorted({line[5].strip() for line in maps if line[1][1] == "w" and line[1][3] == "s"})
unix = {line.split()[6]: line.split()[7:] for line in open(f"/proc/{worker}/net/unix")}

def tries(path):
    for how in (os.O_RDWR, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
        try:
            file = os.open(path, how)
        except PermissionError:
            continue
        for change in (lambda: os.pwrite(file, b"x", 0), lambda: mmap.mmap(file, 4096), lambda: os.ftruncate(file, 0)):
            try:
                change()
                yield how
            except (PermissionError, OSError):
                pass
        os.close(file)

writable, tried, changed, strangers = set(), set(), set(), set()
for number in os.listdir(f"/proc/{worker}/fd"):
    path = os.readlink(f"/proc/{worker}/fd/{number}")
    info = dict(line.split(":", 1) for line in open(f"/proc/{worker}/fdinfo/{number}") if ":" in line)
    if int(info["flags"], 8) & 3 and int(number) > 2:
        writable.add(path)
    if path.startswith("/memfd:") and path != "/memfd:forkyard-pulse (deleted)":
        tried.add(path)
        changed.update((path, how) for how in tries(f"/proc/{worker}/fd/{number}"))
    if path.startswith("socket:") and unix.get(path[8:-1]) != []:
        strangers.add(path)
status = dict(line.split(":", 1) for line in open(f"/proc/{worker}/status"))
print(json.dumps({"shared": shared, "writable": sorted(writable), "tried": sorted(tried), "changed": sorted(changed),
                  "strangers": sorted(strangers), "no_new_privs": int(status["NoNewPrivs"])}))
"#;

#[test]
fn a_worker_can_change_nothing_that_others_read() {
    let manifest = r#"
[artifacts.file]
path = "file"
[artifacts.pinned]
path = "file"
pin = true
[[node]]
id = "sets"
op = "value"
params = { value = 1 }
publish = { one = "{{ result }}" }
[[node]]
id = "spy"
op = "exec"
needs = ["sets"]
artifacts = ["file", "pinned"]
run = ["python3", "spy.py"]
files = ["spy.py"]
output = "json"
"#;
    let space = Space::with(manifest);
    space.write("spy.py", SPY);
    space.write("file", vec![1; 100_000]);
    space.run(&RUN).expect(0);
    let seen: Value = serde_json::from_slice(&space.result("spy")).unwrap();
    assert_eq!(seen["no_new_privs"], 1, "{seen}");
    // The page on which it says what it does. Not the arena, an artifact, a value.
    assert_eq!(seen["shared"], serde_json::json!(["/memfd:forkyard-pulse (deleted)"]), "{seen}");
    // What it holds of memory is sealed, however it is opened. (The arena is mapped; it holds no descriptor of that.)
    let sealed = ["/memfd:forkyard-artifact (deleted)"];
    assert_eq!((&seen["tried"], &seen["changed"]), (&sealed[..].into(), &serde_json::json!([])), "{seen}");
    // Sockets without a name, to the coordinator and the zygote: none that leads elsewhere.
    assert_eq!(seen["strangers"], serde_json::json!([]), "{seen}");
    let store = space.path(".forkyard").canonicalize().unwrap();
    for path in seen["writable"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()) {
        let harmless = path.starts_with("socket:")
            || path.starts_with("pipe:")
            || path.starts_with("anon_inode:")
            || path.starts_with("/proc/")
            || path == "/memfd:forkyard-pulse (deleted)"
            || sealed.contains(&path)
            || path == "/dev/null"
            || Path::new(path) == store.join("lock")
            || Path::new(path).starts_with(store.join("tmp"));
        assert!(harmless, "a worker can write to {path}: {seen}");
    }
}

#[test]
fn ids_that_look_like_paths_lead_nowhere() {
    let ids = ["../../up", "/etc/passwd", "a/../b", "."];
    let node = |id| {
        let script = format!("echo '{id}' > $FORKYARD_SCRATCH/out; echo log >&2");
        format!(
            "[[node]]\nid = \"{id}\"\nop = \"exec\"\nrun = [\"sh\", \"-c\", \"{script}\"]\noutput = \"out\"\n"
        )
    };
    let space = Space::new();
    fs::create_dir(space.path("in")).unwrap();
    space.write("in/m.toml", ids.map(node).concat());
    let store = ["--store", "in/store"];
    space.run(&[&store[..], &["run", "in/m.toml"]].concat()).expect(0);
    for id in ids {
        let of_node = |command: &[&str]| space.run(&[&store[..], command, &[id]].concat()).expect(0).stdout;
        assert_eq!(of_node(&["results", "cat"]), format!("{id}\n").as_bytes());
        assert_eq!(of_node(&["logs"]), b"log\n", "{id}");
    }
    let found = fs::read_dir(space.path("")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(found.collect::<Vec<_>>(), ["in"], "there is something outside of the store");
}
