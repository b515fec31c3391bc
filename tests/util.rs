//! A directory on a disk in which a test runs the real command, and what a test asks of running
//! processes. Knows nothing of what is tested.
//!
//! Nothing here sleeps to let something happen: it waits for a line, for a process's end or for a state
//! in `/proc`, until a deadline that only a hanging program reaches.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Far longer than anything here takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(180);

/// Runs a manifest and tells everything.
pub const RUN: [&str; 5] = ["run", "m.toml", "--json", "--events", "all"];

/// A directory with a manifest and a store.
pub struct Space(tempfile::TempDir);

impl Space {
    pub fn new() -> Space {
        Space(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    /// A space with this text as `m.toml`.
    pub fn with(manifest: &str) -> Space {
        let space = Space::new();
        space.write("m.toml", manifest);
        space
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The text of a file; none is no text.
    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A command whose home is this directory: that marks it and everything it starts.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forkyard"));
        command.args(args).current_dir(self.0.path()).env_clear();
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.0.path()).env("LANG", "C.UTF-8");
        command
    }

    /// Starts a line of shell, from which a command may be started in a way of its own.
    pub fn start_shell(&self, line: &str) -> Running {
        let ours = self.command(&[]);
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", line]).current_dir(self.0.path()).env_clear();
        shell.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Running::start(shell, b"")
    }

    /// Starts a command and goes on.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::start(self.command(args), b"")
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.start(args).end()
    }

    /// Runs a command to its end, with more in its environment.
    pub fn run_in(&self, environment: &[(&str, &str)], args: &[&str]) -> Ended {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        Running::start(command, b"").end()
    }

    /// Runs a command to its end, with this standard input.
    pub fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ended {
        Running::start(self.command(args), stdin).end()
    }

    /// Runs `m.toml`, which must end with this code.
    pub fn run_manifest(&self, code: i32) -> Ended {
        self.run(&RUN).expect(code)
    }

    /// Runs a command of `examples/state_ops.rs` to its end: forkyard with ops of its own.
    pub fn run_ops(&self, args: &[&str]) -> Ended {
        let forkyard = Path::new(env!("CARGO_BIN_EXE_forkyard"));
        let program = forkyard.with_file_name("examples").join("state_ops");
        assert!(program.exists(), "{} is missing: cargo build --example state_ops", program.display());
        let ours = self.command(args);
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).env_clear();
        command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Running::start(command, b"").end()
    }

    /// The result of a node, as bytes.
    pub fn result(&self, node: &str) -> Vec<u8> {
        self.run(&["results", "cat", node]).expect(0).stdout
    }

    /// The result of a node, as text.
    pub fn result_text(&self, node: &str) -> String {
        String::from_utf8(self.result(node)).unwrap()
    }

    /// `results ls --json`: outcome and digest by node.
    pub fn results(&self) -> BTreeMap<String, (String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let lines = self.run(&["results", "ls", "--json"]).expect(0).events();
        lines.iter().map(|l| (text(&l["node"]), (text(&l["outcome"]), text(&l["digest"])))).collect()
    }

    /// Processes that belong to this directory, by their home or by where they are.
    pub fn processes(&self) -> Vec<i32> {
        let home = [b"HOME=", self.0.path().as_os_str().as_encoded_bytes()].concat();
        let is_ours = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == home) || cwd.starts_with(self.0.path())
        };
        pids().into_iter().filter(is_ours).collect()
    }

    /// Nothing of any run here may be left: no process, no file in `tmp/`.
    pub fn expect_nothing_left(&self) {
        eventually("every process is gone", || self.processes().is_empty());
        let tmp = fs::read_dir(self.path(".forkyard/tmp")).into_iter().flatten().flatten();
        let files: Vec<PathBuf> = tmp.map(|entry| entry.path()).collect();
        assert!(files.is_empty(), "left behind: {files:?}");
    }

    /// The only file under `blobs/`.
    pub fn only_blob(&self) -> PathBuf {
        let dirs = fs::read_dir(self.path(".forkyard/blobs")).unwrap().flatten();
        let mut files: Vec<PathBuf> = dirs
            .flat_map(|dir| fs::read_dir(dir.path()).unwrap().flatten())
            .map(|file| file.path())
            .collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

/// A command that has ended.
pub struct Ended {
    status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// It must have ended with this code.
    pub fn expect(self, code: i32) -> Ended {
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert_eq!(self.code(), Some(code), "{}\n{}\n{stdout}", self.status, self.stderr);
        self
    }

    /// A signal must have ended it.
    pub fn expect_signal(self, signal: Signal) -> Ended {
        assert_eq!(self.signal(), Some(signal as i32), "{}\n{}", self.status, self.stderr);
        self
    }

    /// It must have been killed.
    pub fn expect_killed(self) -> Ended {
        self.expect_signal(Signal::SIGKILL)
    }

    /// It must have said this on stderr.
    pub fn says(self, text: &str) -> Ended {
        assert!(self.stderr.contains(text), "this was not said: {text}\nbut this:\n{}", self.stderr);
        self
    }

    /// What it wrote to stdout, a JSON value a line. Who is killed may leave half a line.
    pub fn events(&self) -> Vec<Value> {
        let killed = self.status.signal().is_some();
        let whole = self.stdout.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let stdout = &self.stdout[..if killed { whole } else { self.stdout.len() }];
        let lines = stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    /// All events of this name.
    pub fn events_named(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// The last word about a node.
    pub fn node(&self, node: &str) -> Value {
        let of_node = |event: &Value| event["node"] == node;
        self.events_named("node_finished").into_iter().rev().find(of_node).expect("an event of the node")
    }

    /// Nodes and their outcomes, as `a=ran b=cached`.
    pub fn outcomes(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let nodes = self.events_named("node_finished");
        let nodes: BTreeMap<String, String> =
            nodes.iter().map(|event| (text(&event["node"]), text(&event["outcome"]))).collect();
        nodes.iter().map(|(node, outcome)| format!("{node}={outcome}")).collect::<Vec<_>>().join(" ")
    }

    /// The numbers of `run_finished`.
    pub fn summary(&self) -> Value {
        self.events_named("run_finished").pop().expect("the run's last event")
    }
}

/// A command that runs. Dropped before its end, it is killed.
pub struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    fn start(mut command: Command, stdin: &[u8]) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its input closes it: that is its right.
        child.stdin.take().expect("it is piped").write_all(stdin).ok();
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let stderr = Lines::of(child.stderr.take().expect("it is piped"));
        Running { child, stdout, stderr }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Waits for an event.
    pub fn event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &[u8]| serde_json::from_slice::<Value>(line).ok();
        let line = self
            .stdout
            .until(|line| parse(line).is_some_and(|event| event["event"] == name && wanted(&event)));
        parse(&line).expect("it was parsed before")
    }

    /// Waits until the run says this to people.
    pub fn says(&mut self, text: &str) {
        self.stderr.until(|line| String::from_utf8_lossy(line).contains(text));
    }

    /// The process that forks the workers.
    pub fn zygote(&self) -> i32 {
        self.child_named("forkyard-zygote")
    }

    /// A child of this command.
    pub fn child_named(&self, wanted: &str) -> i32 {
        let of_this = |pid: &i32| parent(*pid) == Some(self.pid()) && name(*pid) == wanted;
        let mut found = None;
        eventually("the child is there", || {
            found = pids().into_iter().find(of_this);
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Whether it has a file open.
    pub fn holds_open(&self, path: &Path) -> bool {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == path)
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        let start = Instant::now();
        // Its pipes close when it and everything below it has ended.
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        let mut status = None;
        eventually("the command ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(start.elapsed() < 2 * DEADLINE);
        let status = status.expect("it has ended");
        Ended { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What a process writes, line by line.
struct Lines {
    new: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (line, new) = mpsc::channel();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            loop {
                let mut bytes = Vec::new();
                match pipe.read_until(b'\n', &mut bytes) {
                    Ok(0) | Err(_) => return,
                    Ok(_) if line.send(bytes).is_err() => return,
                    Ok(_) => {}
                }
            }
        });
        Lines { new, seen: Vec::new() }
    }

    fn until(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let end = Instant::now() + 2 * DEADLINE;
        loop {
            let Ok(line) = self.new.recv_timeout(patience(end)) else {
                panic!("the line never came; these did:\n{}", String::from_utf8_lossy(&self.seen));
            };
            self.seen.extend(&line);
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Everything, when the pipe is closed.
    fn rest(&mut self) -> Vec<u8> {
        let end = Instant::now() + 2 * DEADLINE;
        loop {
            match self.new.recv_timeout(patience(end)) {
                Ok(line) => self.seen.extend(&line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return std::mem::take(&mut self.seen),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("its output stays open; so far:\n{}", String::from_utf8_lossy(&self.seen));
                }
            }
        }
    }
}

/// How long to wait for the next line: one that says something for ever is not listened to for ever.
fn patience(end: Instant) -> Duration {
    DEADLINE.min(end.saturating_duration_since(Instant::now()))
}

/// Waits for something that cannot be waited for otherwise.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "in vain: {what}");
        // Between two looks, so that who is waited for gets the processor.
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Whether a process is there and has not ended.
pub fn lives(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| !fields.starts_with(['Z', 'X']))
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// `/proc/PID/stat` from the state on: what comes before may hold anything.
fn stat(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.rsplit_once(") ").map(|(_, fields)| fields.to_string())
}

fn parent(pid: i32) -> Option<i32> {
    stat(pid)?.split(' ').nth(1)?.parse().ok()
}

fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().into()
}

/// The bytes of a file as numpy writes it: version 1, with this header and these elements.
pub fn npy(header: &str, elements: &[u8]) -> Vec<u8> {
    let mut header = header.to_string();
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), elements].concat()
}

/// A matrix of f32.
pub fn matrix(rows: &[&[f32]]) -> Vec<u8> {
    let (count, cols) = (rows.len(), rows[0].len());
    let elements: Vec<u8> = rows.iter().flat_map(|row| row.iter().flat_map(|x| x.to_le_bytes())).collect();
    npy(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({count}, {cols}), }}"), &elements)
}

/// The Python that has what `scripts/requirements.txt` lists.
pub fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python").join("bin/python");
    assert!(python.exists(), "{} is not there: run scripts/test, which installs it", python.display());
    python
}

/// The path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
