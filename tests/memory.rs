//! What nodes take of the machine: who waits for room, what is done when memory is short, how many workers there are, and
//! what is told of it. The memory is that of a cgroup which the test makes; where it may not make one it says so and ends.

mod admission; // declared memory: never more at once than fits, and nobody waits for ever
mod alerts; // thresholds
mod guard; // nodes that take more than anybody thought
mod limits; // memory_limit and recycle
mod promises; // the commit window, and a task that never returns
mod workers; // how many there are, presets, and what is measured of each op

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::util::{Ended, Running, Space, eventually, python};

const MIB: u64 = 1 << 20;

/// A node that takes so many megabytes and holds them.
fn alloc(id: &str, mb: u64, seconds: f64, more: &str) -> String {
    format!(
        "[[node]]\nid = \"{id}\"\nop = \"alloc\"\nparams = {{ bytes = {}, seconds = {seconds} }}\n{more}\n",
        mb * 1_000_000
    )
}

/// So many of them.
fn allocs(count: usize, mb: u64, seconds: f64, more: &str) -> String {
    (0..count).map(|n| alloc(&format!("n{n}"), mb, seconds, more)).collect()
}

/// A node of `exec` for a shell.
fn shell(id: &str, script: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['''{script}''']\n{more}\n")
}

/// A node that says `<id> up`, then ends when the file `<id> go` is there.
fn waiting(id: &str, more: &str) -> String {
    shell(id, &format!("touch '{id} up'; while [ ! -e '{id} go' ]; do sleep 0.01; done; echo {id}"), more)
}

/// A node that calls a function of `f.py`.
fn call(id: &str, function: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"python\"\ncall = \"f.py:{function}\"\n{more}\n")
}

/// A space with these functions, and nodes that call them.
fn python_space(functions: &str, header: &str, nodes: &str) -> Space {
    let interpreter = format!("[python]\ninterpreter = \"{}\"\n", python().display());
    let space = Space::with(&format!("{header}\n{interpreter}\n{nodes}"));
    space.write("f.py", functions);
    space
}

fn error(ended: &Ended, node: &str) -> String {
    ended.node(node)["error"].as_str().unwrap_or_default().into()
}

/// A cgroup of this test with a limit of memory, gone with this.
struct Group(PathBuf);

impl Group {
    /// None, and a line that says so, where we may not make one.
    fn new(limit: u64) -> Option<Group> {
        let group = Group::make(limit);
        if group.is_none() {
            eprintln!("skipped: no cgroup with a memory limit can be made here");
        }
        group
    }

    fn make(limit: u64) -> Option<Group> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let list = fs::read_to_string("/proc/self/cgroup").ok()?;
        let lines = || list.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let v1 = lines().find(|(controllers, _)| controllers.split(',').any(|one| one == "memory"));
        let (root, path, file) = match v1 {
            Some((_, path)) => ("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"),
            None => {
                ("/sys/fs/cgroup", lines().find(|(controllers, _)| controllers.is_empty())?.1, "memory.max")
            }
        };
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("tests-of-forkyard-{}-{number}", std::process::id());
        let dir = PathBuf::from(format!("{root}{path}")).join(name);
        fs::create_dir(&dir).ok()?;
        let group = Group(dir);
        fs::write(group.0.join(file), limit.to_string()).ok()?;
        Some(group)
    }

    /// Starts a run of a space's `m.toml` in it.
    fn start(&self, space: &Space, args: &str) -> Running {
        let (procs, forkyard) = (self.0.join("cgroup.procs"), env!("CARGO_BIN_EXE_forkyard"));
        space.start_shell(&format!(
            "echo $$ > {} && exec {forkyard} run m.toml --json --events all {args}",
            procs.display()
        ))
    }

    fn run(&self, space: &Space, args: &str) -> Ended {
        self.start(space, args).end()
    }

    /// How many processes the kernel has killed in it.
    fn oom_kills(&self) -> u64 {
        let files = ["memory.oom_control", "memory.events"].map(|file| fs::read_to_string(self.0.join(file)));
        let text = files.into_iter().find_map(Result::ok).expect("what the kernel tells of it");
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.expect("a count of kills").trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has ended may not have left it yet.
        eventually("the cgroup is empty", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

/// When nodes began and ended: what ran at the same time as what.
struct Spans(Vec<(String, f64, f64)>);

impl Spans {
    /// Out of `--trace trace.json`.
    fn of(space: &Space) -> Spans {
        let trace: Vec<Value> = serde_json::from_str(&space.text("trace.json")).expect("a trace");
        let spans = trace.iter().filter(|span| span["ph"] == "X").map(|span| {
            let (start, length) = (span["ts"].as_f64().unwrap(), span["dur"].as_f64().unwrap());
            (span["name"].as_str().unwrap().to_string(), start, start + length)
        });
        let spans = Spans(spans.collect());
        assert!(!spans.0.is_empty(), "nothing ran");
        spans
    }

    fn of_node(&self, node: &str) -> (f64, f64) {
        let (_, start, end) = self.0.iter().find(|(name, ..)| name == node).expect("a span of the node");
        (*start, *end)
    }

    /// The most nodes that ran at one time. All that run at any time run when one of them begins.
    fn at_once(&self) -> usize {
        let running = |at: f64| self.0.iter().filter(|(_, start, end)| *start <= at && at < *end).count();
        self.0.iter().map(|(_, start, _)| running(*start)).max().unwrap_or(0)
    }
}
