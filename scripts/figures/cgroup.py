"""A cgroup with a limit of memory, made for one command and removed with it. Knows nothing of the command."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

FILES = {"memory.limit_in_bytes": ("memory.oom_control", "memory.max_usage_in_bytes"), "memory.max": ("memory.events", "memory.peak")}


def place():
    """Where a cgroup of ours may be: beside v1 its memory controller's hierarchy, else v2; and its file of the limit."""
    entries = [line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for controllers, path in entries:
        if "memory" in controllers.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"
    return Path("/sys/fs/cgroup" + next(path for controllers, path in entries if not controllers)), "memory.max"


class Group:
    """One that exists."""

    def __init__(self, path, limit_file):
        self.path, (self.events, self.peak_file) = path, FILES[limit_file]

    def run(self, command, **words):
        """Runs a command in it; seconds that it took, and what became of it."""
        start = time.perf_counter()
        done = subprocess.run(["sh", "-c", 'echo $$ > "$0" && exec "$@"', self.path / "cgroup.procs", *command], **words)
        return time.perf_counter() - start, done

    def oom_kills(self):
        """Processes that the kernel has killed in it for want of memory."""
        lines = (self.path / self.events).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def peak(self):
        """The most bytes that were in use in it, of files too; None where the kernel does not tell."""
        with contextlib.suppress(FileNotFoundError):
            return int((self.path / self.peak_file).read_text())


@contextlib.contextmanager
def cgroup(limit):
    """A cgroup for one command. Where none may be made there is nothing to measure, which is no fault."""
    parent, limit_file = place()
    path = parent / f"figures-of-forkyard-{time.monotonic_ns()}"
    try:
        path.mkdir()
        (path / limit_file).write_text(str(limit))
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        print(f"skipped: no cgroup with a memory limit can be made here: {error}")
        sys.exit(0)
    try:
        yield Group(path, limit_file)
    finally:
        for _ in range(1000):
            # A process that has ended may not have left it yet.
            with contextlib.suppress(OSError):
                path.rmdir()
                break
            time.sleep(0.01)


def swapped_out():
    """Pages that the machine has ever written to swap."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("pswpout "))
