"""Finding processes, signalling them, seeing which are left. Knows nothing of what they do."""

import contextlib
import ctypes
import os
import pathlib
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x8000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)


def stand_apart():
    """From now on this process and what it starts share no memory by name and no sockets with others, so that
    whatever is there is theirs. False if that is not allowed: then only names of ours are looked for."""
    if libc.unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET) != 0:
        return False
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        return False
    return libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, None) == 0


def adopt():
    """From now on whatever is left of what this process started becomes its child, whatever it did to hide."""
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        sys.exit("this kernel does not tell who is whose child: it is made without CONFIG_PROC_CHILDREN")


def has_children():
    """The lists of children may miss one while others end; this does not."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def adopted():
    """The children of this process; those that have ended are waited for."""
    found = children(os.getpid(), ended=True)
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return [pid for pid in found if fields_of(pid)]


def fields_of(pid):
    """What the kernel tells of a process, from its state on; nothing if there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def children(pid, ended=False):
    """The kernel's own lists, one a thread: a scan of all processes for each question would be most of a round."""
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return [child for child in found if (fields := fields_of(child)) and (ended or fields[0] != b"Z")]


def about(pid):
    """What there is to say of a process that should not be there."""
    words = "process {} ({}) is {}, waits in {}, has {} below".format
    state = (fields_of(pid) or [b"gone"])[0].decode()
    with contextlib.suppress(OSError):
        return words(pid, command_name(pid), state, pathlib.Path(f"/proc/{pid}/wchan").read_text(), children(pid, ended=True))
    return f"process {pid}"


def command_name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def started(pid):
    """When a process was started, in ticks."""
    fields = fields_of(pid)
    return int(fields[19]) if fields else 0


def is_python(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("python")
    except OSError:
        return False


def open_files(pid):
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return []


def send(pid, what):
    """Whether there was such a process."""
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True


def segfault(pid):
    """A program in Rust takes the first one that is only sent for a fault that comes again when it goes on, and goes
    on: that one does not come again, so it is sent until it has an effect."""
    struck = send(pid, signal.SIGSEGV)
    deadline = time.monotonic() + 0.2  # whoever is stopped does not take it now
    while (fields := fields_of(pid)) and fields[0] not in (b"Z", b"X") and time.monotonic() < deadline:
        send(pid, signal.SIGSEGV)
        time.sleep(0.001)
    return struck


def strike(pid, what):
    return segfault(pid) if what == signal.SIGSEGV else send(pid, what)


def kill(pid):
    return send(pid, signal.SIGKILL)


# ---- who is who below a run ----


def below_zygote(coordinator):
    return [pid for zygote in children(coordinator)[:1] for pid in children(zygote)]


def workers_of(coordinator):
    return [pid for pid in below_zygote(coordinator) if command_name(pid) == "forkyard-worker"]


def pythons_of(coordinator):
    """The interpreters below the zygote, the one that forks the others first: it is the oldest."""
    found = [pid for pid in below_zygote(coordinator) if is_python(pid)]
    return sorted(found, key=lambda pid: (started(pid), pid))


def commands_of(coordinator):
    return [pid for worker in workers_of(coordinator) for pid in children(worker)]


def grandchildren_of(coordinator):
    """What commands and Python functions have started, sessions of their own too."""
    starters = commands_of(coordinator) + pythons_of(coordinator)[1:]
    return [pid for starter in starters for pid in children(starter)]


TARGETS = {
    "coordinator": lambda coordinator: [coordinator],
    "zygote": lambda coordinator: children(coordinator)[:1],
    "worker": workers_of,
    "Python zygote": lambda coordinator: pythons_of(coordinator)[:1],
    "Python process": lambda coordinator: pythons_of(coordinator)[1:],
    "command": commands_of,
    "grandchild": grandchildren_of,
}
