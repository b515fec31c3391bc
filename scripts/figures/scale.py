#!/usr/bin/env python3
"""Cost against size and width: nodes a second from 10,000 to 1,000,000 nodes, nodes that wait on 1 to 100 workers, and the
DAGs of VoxLogicA-2's suite (small, large, wide, deep, mixed sizes of results); seeds printed."""

import random
from statistics import median

import common

RUNS, SEED = 3, 11
SIZES = (10_000, 100_000, 1_000_000)
WORKERS = (1, 2, 8, 32, 100)
WAIT_MS, WAITS = 20, 100
GOAL_SPREAD, GOAL_RATE = 1.5, 0.9


def noop(number, needs):
    return {"id": f"n{number}", "op": "noop", "needs": [f"n{need}" for need in sorted(needs)]}


def drawn(nodes, most, seed):
    """Each node needs some of those before it."""
    choose = random.Random(seed)
    return [noop(n, {choose.randrange(n) for _ in range(choose.randint(0, most))} if n else ()) for n in range(nodes)]


def wide(nodes):
    """One node before all others, and one after."""
    middle = [noop(n, [0]) for n in range(1, nodes - 1)]
    return [noop(0, ()), *middle, noop(nodes - 1, range(1, nodes - 1))]


def deep(nodes):
    return [noop(n, [n - 1] if n else ()) for n in range(nodes)]


def mixed(nodes, seed):
    """Results of 10 B to 100 kB, each read by the next."""
    choose, listed = random.Random(seed), []
    for n in range(nodes):
        text = f"{n:08}" + "x" * int(10 ** choose.uniform(1, 5))
        params = {"value": [text, "{{ nodes.n%d.result }}" % (n - 1)] if n % 10 else text}
        listed.append({"id": f"n{n}", "op": "value", "params": params})
    return listed


def wall(args, nodes, *options, workers=2):
    """The median of the seconds of cold runs, the most private memory in MB and the store in MB."""
    seconds, memory, store_mb = [], 0, 0
    for _ in range(RUNS):
        with common.scratch() as dir:
            path = common.write_manifest(dir / "scale.jsonl", nodes)
            run = common.run(args.forkyard, path, dir / "store", "--workers", str(workers), *options)
            ran = run.finished["ran"]
            common.check(ran == len(nodes), f"{ran} of {len(nodes)} nodes ran")
            seconds.append(run.wall_s)
            memory = max(memory, run.finished.get("peak_private_bytes", 0) / 1e6)
            store_mb = sum(file.stat().st_size for file in (dir / "store").rglob("*") if file.is_file()) / 1e6
    return median(seconds), memory, store_mb


def sizes(args):
    """Nodes a second from command to exit; and without what a run of one node takes, which is no cost of nodes."""
    start = wall(args, drawn(1, 3, SEED))[0]
    walls = {nodes: wall(args, drawn(nodes, 3, SEED))[0] for nodes in SIZES}
    rows = [("a run of one node, ms", start * 1000, None)]
    rows += [(f"{nodes:,} nodes, nodes/s", nodes / seconds, None) for nodes, seconds in walls.items()]
    rates = [(nodes - 1) / (seconds - start) for nodes, seconds in walls.items()]
    return [*rows, ("fastest to slowest size, without the run of one node", max(rates) / min(rates), common.at_most(GOAL_SPREAD))]


def waiting(args):
    """Of nodes that only wait, so many workers do so many times as much as one."""
    rows, one = [], None
    for workers in WORKERS:
        nodes = [{"id": f"n{n}", "op": "sleep", "params": {"seconds": WAIT_MS / 1000}} for n in range(WAITS * workers)]
        rate = len(nodes) / wall(args, nodes, workers=workers)[0]
        one = one or rate
        share = rate / workers / one
        rows.append((f"{workers} workers, nodes of {WAIT_MS} ms: nodes/s a worker, to that of one", share, common.at_least(GOAL_RATE)))
    return rows


def suite(args):
    dags = {
        "small: 50 nodes, at most 3 needs": drawn(50, 3, SEED),
        "large: 2,000 nodes, at most 5 needs": drawn(2000, 5, SEED),
        "wide: 2,000 nodes": wide(2000),
        "deep: 2,000 nodes": deep(2000),
        "mixed: 2,000 results of 10 B to 100 kB": mixed(2000, SEED),
    }
    rows = []
    for name, nodes in dags.items():
        seconds, memory, store = wall(args, nodes)
        rows += [(f"{name}: nodes/s", len(nodes) / seconds, None), (f"{name}: ms", seconds * 1000, None)]
        rows += [(f"{name}: private memory of workers, MB (most)", memory, None), (f"{name}: store, MB", store, None)]
    return rows


def main():
    parts = {"sizes": sizes, "waiting": waiting, "suite": suite}
    args = common.arguments(__doc__, only={"choices": parts, "help": "only this part"})
    print(f"seed {SEED}, medians of {RUNS} runs")
    common.table(*(row for name, part in parts.items() if args.only in (None, name) for row in part(args)))


if __name__ == "__main__":
    main()
