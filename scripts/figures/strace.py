#!/usr/bin/env python3
"""What workers ask of the system during an ordinary run, as strace sees it: each file that they open for writing or change by
name must lie in the store's tmp/ (but for /dev/null and their own switches in /proc), and they make no socket. With a node of
Python, a worker makes the two pairs of sockets by which it speaks to its own Python process, and nothing else.

Needs strace, and leave to trace. What commands and Python processes do themselves is theirs, and not looked at.
"""

import collections
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import arguments, check, scratch, table, write_manifest

# Calls that change something by its name, beside those that open it.
CHANGES = "creat truncate mkdir mkdirat rmdir rename renameat renameat2 unlink unlinkat link linkat symlink symlinkat " \
    "chmod fchmodat chown lchown fchownat mknod mknodat setxattr mount".split()
OPENS = ["open", "openat", "openat2"]
SOCKETS = ["socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"]

WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND")
LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>)?\(?(.*)$")
# A name, and the directory that it is seen from.
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"')


def nodes(with_python):
    """One of each kind that does something of its own: values of all sizes, reads of artifacts, commands, the state."""
    yield {"id": "n", "op": "noop", "foreach": {"list": list(range(200))}}
    yield {"id": "v", "op": "value", "params": {"value": "x" * 100_000}, "publish": {"length": "{{ result | length }}"}}
    yield {"id": "b", "op": "bytes", "artifact": "bytes", "params": {"offset": 0, "length": 500_000}}
    yield {"id": "t", "op": "topk", "artifact": "matrix", "params": {"row": 3, "k": 5}}
    yield {"id": "l", "op": "lookup", "artifact": "records", "params": {"key": "k7"}}
    yield {"id": "e", "op": "exec", "run": ["wc", "-c"], "stdin": "{{ nodes.b.result }}"}
    yield {"id": "f", "op": "exec", "run": ["sh", "-c", "seq 20000 > $FORKYARD_SCRATCH/out"], "output": "out"}
    yield {"id": "a", "op": "exec", "run": ["sh", "-c", "cat $FORKYARD_INPUT_IT $FORKYARD_ARTIFACT_BYTES | sha256sum"],
           "inputs": {"it": "{{ nodes.v.result }}"}, "artifacts": ["bytes"]}
    if with_python:
        yield {"id": "p", "op": "python", "call": "function:twice", "params": {"text": "{{ nodes.v.result }}"}}


def materials(place):
    """Artifacts of three formats, and a module."""
    (place / "bytes").write_bytes(bytes(number * number % 251 for number in range(1_000_000)))
    (place / "records.jsonl").write_text("".join(f'{{"id": "k{n}", "n": {n}}}\n' for n in range(100)))
    head = str({"descr": "<f4", "fortran_order": False, "shape": (1000, 8)}).ljust(117) + "\n"
    (place / "matrix.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(32_000))
    (place / "function.py").write_text("def twice(text):\n    return text + text\n")
    return {"bytes": {"path": "bytes"}, "records": {"path": "records.jsonl", "key": "id"}, "matrix": {"path": "matrix.npy"}}


def traced(forkyard, place, with_python):
    """Calls of workers, by name, with what they were about."""
    manifest = write_manifest(place / "m.jsonl", nodes(with_python), artifacts=materials(place))
    trace = place / "trace"
    command = ["strace", "-f", "-y", "-qq", "-s", "4096", "-o", trace, "-e", "trace=" + ",".join(CHANGES + OPENS + SOCKETS),
               forkyard, "run", manifest, "--json", "--events", "all", "--workers", "2", "--store", place / "store"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    if "ptrace" in done.stderr and done.returncode != 0 and not trace.stat().st_size:
        print(f"skipped: {done.stderr.strip()}")
        sys.exit(0)
    check(done.returncode == 0, f"exit code {done.returncode}: {done.stderr.strip()}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    workers = {str(event["pid"]) for event in events if event["event"] == "worker_started"}
    check(len(workers) == 2, f"workers: {workers}")
    calls = []
    for line in trace.read_text(errors="replace").splitlines():
        parts = LINE.match(line)
        if parts and parts[1] in workers:
            calls.append((parts[1], parts[2], parts[3]))
    return workers, calls


def outside(call, about, place):
    """What a call changes outside of the store's tmp/, if anything."""
    if call in SOCKETS or (call in OPENS and not WRITES.search(about)):
        return []
    tmp = (place / "store" / "tmp").resolve()
    found = []
    # A symbolic link leads wherever it likes: only where it lies counts.
    for start, name in PATH.findall(about)[-1 if call.startswith("symlink") else 0:]:
        path = Path(start or place) / name
        harmless = name == "/dev/null" or re.fullmatch(r"/proc/(self|\d+)/(oom_score_adj|clear_refs)", name)
        if not harmless and not path.is_relative_to(tmp):
            found.append(f"{call}({about}")
    return found


def main():
    args = arguments(__doc__)
    if shutil.which("strace") is None:
        print("skipped: strace is not installed")
        return
    rows = []
    for with_python in [False, True]:
        with scratch() as place:
            place = place.resolve()
            workers, calls = traced(args.forkyard, place, with_python)
            counts = collections.Counter(name for _, name, _ in calls)
            strays = [stray for _, name, about in calls for stray in outside(name, about, place)]
            check(not strays, "outside of tmp/:\n" + "\n".join(strays))
            made = sum(counts[name] for name in SOCKETS)
            expected = 2 * len({pid for pid, name, _ in calls if name == "socketpair"}) if with_python else 0
            check(made == expected, f"{made} calls about sockets: " + "; ".join(a for _, n, a in calls if n in SOCKETS))
            writes = sum(1 for _, name, about in calls if name in OPENS and WRITES.search(about))
            check(writes > 0, "nothing was written: the trace has missed the workers")
            kind = "with Python" if with_python else "native"
            rows += [(f"{kind}: files opened to read", sum(counts[name] for name in OPENS) - writes, None),
                     (f"{kind}: files opened to write (scratch, blobs, /dev/null, own switches in /proc)", writes, None),
                     (f"{kind}: of these outside of tmp/, or changed there by name", len(strays), None),
                     (f"{kind}: sockets made, beside those to their own Python process", made - expected, None)]
    table(*rows)


main()
