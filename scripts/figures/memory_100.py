#!/usr/bin/env python3
"""A hundred workers on one matrix of 250 MiB: what they hold together, and when each has given its first result."""

import json
import random
import struct
import subprocess
import time
from array import array

import common
from tree_memory import tree_memory

ROWS, COLUMNS, WORKERS, SEED = 170_667, 384, 100, 20_251
MIB = 1 << 20
GOAL_PSS_MIB, GOAL_PAGE_TABLES_MIB, GOAL_TIMES_BARE = 280, 60, 1.25


def random_rows(chance):
    """Rows cut from one strip of random numbers at places all different: as good as fresh ones, and quick to make."""
    strip = array("f", (chance.uniform(-1, 1) for _ in range(MIB))).tobytes()
    for place in chance.sample(range(MIB - COLUMNS), ROWS):
        yield strip[4 * place:4 * (place + COLUMNS)]


def write_npy(path, rows, columns, chunks):
    """An .npy file of float32 out of chunks of little-endian bytes."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    header = header.ljust(128 - 10 - 1) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.writelines(chunks)
    return path


def nodes():
    """A scan for every worker; then a sleep for every worker, so that all are alive while they are measured."""
    for i in range(WORKERS):
        yield {"id": f"scan-{i}", "op": "topk", "artifact": "m", "params": {"row": i * (ROWS // WORKERS), "k": 10}}
    yield {"id": "all", "op": "noop", "needs": [f"scan-{i}" for i in range(WORKERS)]}
    for i in range(WORKERS):
        yield {"id": f"sleep-{i}", "op": "sleep", "needs": ["all"], "params": {"seconds": 2}}


def main():
    args = common.arguments(__doc__)
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    with common.scratch() as dir:
        matrix = write_npy(dir / "matrix.npy", ROWS, COLUMNS, random_rows(chance))
        size = matrix.stat().st_size
        manifest = common.write_manifest(dir / "memory.jsonl", nodes(), artifacts={"m": {"path": "matrix.npy"}})
        start, scanned = time.perf_counter(), []
        with common.watch(args.forkyard, manifest, dir / "store", "--workers", str(WORKERS)) as (process, events):
            for event in events:
                if event["event"] == "node_finished" and event["node"].startswith("scan-"):
                    common.check(event["outcome"] == "ran", f"{event['node']}: {event}")
                    scanned.append(event)
                if len(scanned) == WORKERS:
                    break
            wall_s = time.perf_counter() - start
            processes, memory = tree_memory(process.pid)
        for i in range(WORKERS):
            cat = [args.forkyard, "results", "cat", f"scan-{i}", "--store", dir / "store"]
            best = json.loads(subprocess.run(cat, cwd=dir, capture_output=True, check=True).stdout)
            itself = best["ids"][0] == i * (ROWS // WORKERS) and abs(best["scores"][0] - 1) < 1e-5
            common.check(itself, f"scan-{i}: a row is nearest to itself, not {best}")
        bare = common.floor("forks", matrix, WORKERS).get("seconds")
    print(f"{processes} processes; {len({event['worker'] for event in scanned})} workers scanned the matrix of {size / MIB:.1f} MiB")
    common.table(
        ("MiB, proportional (PSS), all processes", memory["Pss"] / MIB, common.at_most(GOAL_PSS_MIB)),
        ("MiB, private, all processes", (memory["Private_Clean"] + memory["Private_Dirty"]) / MIB, None),
        ("MiB, page tables (VmPTE)", memory["VmPTE"] / MIB, common.at_most(GOAL_PAGE_TABLES_MIB)),
        (f"s, a bare loop of {WORKERS} forks and scans", bare, None),
        ("s, until all first results (t)", max(event["t"] for event in scanned), None),
        ("s, the same from the command on", wall_s, None),
        ("times the bare loop, from the command on", common.ratio(wall_s, bare), common.at_most(GOAL_TIMES_BARE)),
    )


if __name__ == "__main__":
    main()
