"""Memory of a process and all below it, as the kernel accounts for it. Knows nothing of what these processes are."""

import contextlib
from pathlib import Path


def tree(pid):
    """The process and all below it."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may hold anything; the parent is the second field after it.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def tree_memory(pid):
    """How many processes there are, and their bytes by field: of smaps_rollup, and page tables (VmPTE) and
    swap (VmSwap)."""
    total = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0, "VmPTE": 0, "VmSwap": 0}
    pids = tree(pid)
    for each in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for file in ["smaps_rollup", "status"]:
                for line in Path(f"/proc/{each}/{file}").read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in total:
                        total[name] += 1024 * int(value.split()[0])
    return len(pids), total
