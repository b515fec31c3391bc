#!/usr/bin/env python3
"""Nodes of 100 MB in a cgroup of 2 GiB: `--workers auto` beside fixed numbers of workers; then nodes that take eight times what
they say."""

import json
import subprocess
from collections import Counter

import common
from cgroup import cgroup, swapped_out

LIMIT, MB = 2 << 30, 1_000_000
NODES, FIXED = 160, [4, 8, 12, 16, 18]
LIARS, SAID, TAKEN = 60, "50MB", 400 * MB
GOAL = 1.10


def allocs(count, taken, seconds, **more):
    """Nodes that take memory and hold it, and are not remembered."""
    for n in range(count):
        yield {"id": f"n{n}", "op": "alloc", "params": {"bytes": taken, "seconds": seconds}, "cache": False, **more}


def run(forkyard, manifest, store, workers):
    """One run in a cgroup of its own, as a row of the table; it must have run every node, and its coordinator lived."""
    command = [forkyard, "run", manifest, "--store", store, "--json", "--events", "failures", "--quiet", "--workers", str(workers)]
    swap = swapped_out()
    with cgroup(LIMIT) as group:
        wall_s, done = group.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        common.check(done.returncode == 0, f"--workers {workers}: exit code {done.returncode}: {done.stderr.strip()}")
        events = [json.loads(line) for line in done.stdout.splitlines()]
        finished, count = events[-1], Counter(event.get("action", event["event"]) for event in events)
        common.check(finished["ran"] == finished["nodes"], f"--workers {workers}: {finished['ran']} of {finished['nodes']} ran")
        return {
            "s": wall_s, "workers": len({event["worker"] for event in events if event["event"] == "worker_started"}),
            "kills": count["kill"], "stops": count["stop_admitting"], "oom kills": group.oom_kills(),
            "peak, MiB": (group.peak() or 0) / (1 << 20), "private, MiB": finished["peak_private_bytes"] / (1 << 20),
            "swapped": swapped_out() - swap,
        }


def show(rows):
    """All runs, a line each."""
    columns = list(next(iter(rows.values())))
    width = max(map(len, rows))
    print(f"{'--workers':<{width}}" + "".join(f"{column:>14}" for column in columns))
    for name, row in rows.items():
        print(f"{name:<{width}}" + "".join(f"{row[column]:>14,.2f}" if column == "s" else f"{row[column]:>14,.0f}" for column in columns))


def main():
    args = common.arguments(__doc__)
    with common.scratch() as dir:
        honest = common.write_manifest(dir / "honest.jsonl", allocs(NODES, 100 * MB, 1))
        # The second time it knows what they take.
        rows = {name: run(args.forkyard, honest, dir / "auto", "auto") for name in ["auto", "auto, again"]}
        rows |= {str(workers): run(args.forkyard, honest, dir / f"fixed-{workers}", workers) for workers in FIXED}
        print(f"{NODES} nodes of 100 MB that wait 1 s")
        show(rows)
        liars = common.write_manifest(dir / "liars.jsonl", allocs(LIARS, TAKEN, 1, memory=SAID))
        lied = {str(workers): run(args.forkyard, liars, dir / f"liars-{workers}", workers) for workers in ["auto", 32]}
        print(f"{LIARS} nodes that say {SAID} and take {TAKEN // MB} MB")
        show(lied)
    best = min(rows[str(workers)]["s"] for workers in FIXED)
    every = [*rows.values(), *lied.values()]
    common.table(
        ("times the best fixed number, auto that knows nothing", rows["auto"]["s"] / best, common.at_most(GOAL)),
        ("times the best fixed number, auto that has run before", rows["auto, again"]["s"] / best, common.at_most(GOAL)),
        ("processes killed by the kernel, all runs", sum(row["oom kills"] for row in every), common.at_most(0)),
        ("pages swapped out, all runs", sum(row["swapped"] for row in every), common.at_most(0)),
    )


if __name__ == "__main__":
    main()
