"""Finding processes and killing them. Knows nothing of what they do."""

import os
import pathlib
import signal


def fields_of(pid):
    """What the kernel tells of a process, from its state on; nothing if there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def stat(pid):
    """Parent and state of a process."""
    fields = fields_of(pid)
    return (int(fields[1]), fields[0].decode()) if fields else (None, None)


def pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children(pid):
    return [child for child in pids() if stat(child)[0] == pid and stat(child)[1] != "Z"]


def command_name(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def pythons_of(pid):
    """The children that are Python interpreters, the oldest first."""
    found = []
    for child in children(pid):
        try:
            is_python = os.path.basename(os.readlink(f"/proc/{child}/exe")).startswith("python")
        except OSError:
            continue
        if is_python and (fields := fields_of(child)):
            found.append((int(fields[19]), child))
    return [child for _, child in sorted(found)]


def processes_of(home):
    """Everything with this home directory: a command and all that it started."""
    mark, found = b"HOME=%s" % os.fsencode(home), []
    for pid in pids():
        try:
            if mark in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            pass
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
