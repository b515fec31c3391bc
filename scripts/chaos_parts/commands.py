"""The commands of forkyard, and what holds after each: it ends, as it should, and nothing is left of it."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import resource
import subprocess
import threading
import time

from .processes import about, adopted, has_children, kill

DEADLINE_S = 120
SLOWER = 3  # who strikes must be quicker than who is struck
OK, FAILED, UNUSABLE_ARTIFACT, STORE, DOES_NOT_FIT, ZYGOTE_DIED = 0, 1, 3, 4, 5, 70  # exit codes
# What no fault may bring about.
NEVER_SAID = re.compile(r"panicked at|\bBUG\b|RUST_BACKTRACE|overflow|corrupted size")
# What is ours in places that others use too: it carries our name, or that of a library of ours.
OURS = re.compile(r"forkyard|ipc|\.tmp|^rust")


class Violation(Exception):
    """A promise that was not kept."""


def expect(kept, broken):
    if not kept:
        raise Violation(broken)


def same(found, expected, what):
    wrong = [node for node in expected if found.get(node) != expected[node]]
    more = found.keys() - expected.keys()
    expect(not wrong and not more, f"{what}: other results than in peace: {wrong[:5]} {list(more)[:5]}")


class Running:
    """A command that goes on. Its lines are read as they come."""

    def __init__(self, process, words, stderr):
        self.process, self.words, self.stderr = process, words, stderr
        self.pid, self.lines, self.more, self.has_ended = process.pid, [], threading.Condition(), False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.more:
                self.lines.append(line)
                self.more.notify_all()
        with self.more:
            self.has_ended = True
            self.more.notify_all()

    def wait_for_lines(self, count):
        """Until it has printed so many, or has closed its output."""
        with self.more:
            came = self.more.wait_for(lambda: self.has_ended or len(self.lines) >= count, DEADLINE_S)
        expect(came, f"{self.words} neither prints nor ends")

    def is_alive(self):
        return self.process.poll() is None

    def end(self, codes, what=None):
        """Waits for its end, which must be one of these exit codes."""
        what = what or self.words
        try:
            code = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise Violation(f"{what} does not end") from None
        self.reader.join(DEADLINE_S)
        expect(not self.reader.is_alive(), f"{what} has ended, and somebody holds its stdout")
        said = self.said()
        expect(code in codes, f"{what} ends with {code}: {said}")
        expect(code <= 0 or said.strip() or self.lines, f"{what} ends with {code} and does not say why")
        expect(not NEVER_SAID.search(said), f"{what} says: {said}")
        return code

    def said(self):
        return self.stderr.read_text(errors="replace")

    def events(self):
        """Who is killed may leave half a line."""
        return [json.loads(line) for line in self.lines if line.endswith(b"\n")]


class Forkyard:
    """Commands on one store, in a directory that marks them and all that they start."""

    is_apart = False  # whether nobody else can be where they are

    def __init__(self, path, directory):
        directory.mkdir(exist_ok=True)
        self.path, self.directory, self.store = path, directory, directory / ".forkyard"
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "LANG": "C.UTF-8"}
        self.environment["TMPDIR"] = str(directory / "tmpdir")
        (directory / "tmpdir").mkdir(exist_ok=True)
        self.others = self.names_elsewhere()
        self.count = 0

    def start(self, *words, environment={}, before=lambda: None):
        self.count += 1
        command = [str(self.path), "--store", str(self.store), *words]
        stderr = self.directory / f"stderr-{self.count}"
        stderr.with_name(f"command-{self.count}").write_text(" ".join(command) + f"\n{environment}\n")

        def prepare():
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.nice(SLOWER)
            before()

        with open(stderr, "wb") as err:
            process = subprocess.Popen(
                command, cwd=self.directory, env={**self.environment, **environment}, preexec_fn=prepare,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err,
            )
        return Running(process, " ".join(words), stderr)

    def start_run(self, manifest, **how):
        return self.start("run", manifest, "--json", "--events", "all", **how)

    def do(self, *words, codes=(OK,), **how):
        running = self.start(*words, **how)
        return running.end(codes), running

    def run(self, manifest, **how):
        """Runs to the end; the outcome of each node."""
        running = self.start_run(manifest, **how)
        running.end((OK,))
        return {e["node"]: e["outcome"] for e in running.events() if e["event"] == "node_finished"}

    def results(self, run=None, codes=(OK,)):
        """What the store hands out of a run: good results by node, and the nodes of those that it calls damaged. With
        the code of an unusable store among these codes it may hand out nothing."""
        which = ["--run", str(run)] if run else []
        words = ["results", "export", "--format", "jsonl", *which, "-"]
        code, running = self.do(*words, codes=(OK, 2, STORE))
        if code != OK and re.search("there is no store|has no run yet", running.said()):
            return {}, set()
        rows = [row for row in running.events() if row["outcome"] in ("ran", "cached")]
        # What was made from code that changed meanwhile is no result of these nodes, and was said not to be one.
        rows = [row for row in rows if "its result is not kept" not in (row["error"] or "")]
        damaged = {row["node"] for row in rows if row["error"] is not None}
        expected = (STORE,) if damaged else codes
        expect(code in expected, f"{' '.join(words)} ends with {code}: {running.said()}")
        good = {row["node"]: (row["kind"], row["digest"], row["value"]) for row in rows if row["node"] not in damaged}
        return good, damaged

    def expect_nothing_left(self, when, files=True):
        deadline = time.monotonic() + DEADLINE_S
        # Who is about to end cannot be waited for by others than its parent.
        while has_children():
            left = adopted()
            expect(time.monotonic() < deadline, f"{when} processes are left: {list(map(about, left))}")
            time.sleep(0.002)
        new = self.names_elsewhere() - self.others
        expect(not new, f"{when} there are: {new}")
        names = os.listdir(self.directory / "tmpdir")
        expect(not names, f"{when} TMPDIR holds {names}")
        if self.store.exists():
            names = os.listdir(self.store / "tmp") if (self.store / "tmp").exists() else []
            expect(not files or not names, f"{when} tmp/ holds {names}")
            expect(self.is_free(), f"{when} the lock is held")

    def is_free(self):
        if not (self.store / "lock").exists():
            return True
        with open(self.store / "lock") as lock:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def runs(self):
        return sorted(int(name) for name in os.listdir(self.store / "runs") if name.isdigit())

    def kill_everything(self):
        """After a violation: what is left is no concern of the next one."""
        while has_children():
            for pid in adopted():
                kill(pid)
            time.sleep(0.002)

    def names_elsewhere(self):
        """Names of ours outside of a store: shared memory, sockets."""
        with contextlib.suppress(OSError):
            rows = [line.split() for line in pathlib.Path("/proc/self/net/unix").read_text().splitlines()[1:]]
            found = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}
            found |= {row[7] for row in rows if len(row) > 7}
            return {name for name in found if self.is_apart or OURS.search(name)}
        return set()
