#!/usr/bin/env python3
"""The scheduler's benchmark of VoxLogicA-2: loops of which nobody knows the length before they run, every answer checked."""

import hashlib
import multiprocessing
import subprocess
import time
from statistics import median

import common

RUNS, WIDTH, CORES = 3, 250, 2
# Measured beside, on a like machine, with a store: seconds of VoxLogicA-2.
OTHER_S = {(20, 0): 2.25, (100, 0): 10.6, (20, 1): 4.3, (100, 1): 25.0}
GOAL_NODES_PER_S, GOAL_OF_IDEAL = 100_000, 1.10


def manifest(path, outer, rounds):
    """How long the loops are is the result of a node."""
    size = {"id": "size", "op": "value", "params": {"value": {"outer": outer, "width": WIDTH}}}
    params = {"outer": "{{ nodes.size.result.outer }}", "width": "{{ nodes.size.result.width }}", "rounds": rounds}
    return common.write_manifest(path, [size, {"id": "loops", "op": "expand", "params": params}])


def answer(outer):
    """The sum of i * 1,000,000 + j over all kernels."""
    return WIDTH * 1_000_000 * outer * (outer - 1) // 2 + outer * WIDTH * (WIDTH - 1) // 2


def hash_many(passes):
    buffer = bytes([7]) * (1 << 20)
    for _ in range(passes):
        hashlib.sha256(buffer).digest()


def ideal(kernels):
    """Seconds of all kernels in bare processes, one a core, each of which hashes its part in one loop."""
    with multiprocessing.Pool(CORES) as pool:
        pool.map(hash_many, [1] * CORES)
        start = time.perf_counter()
        pool.map(hash_many, [kernels // CORES] * CORES, chunksize=1)
        return time.perf_counter() - start


def measure(args, outer, rounds):
    """Medians of a run with an empty store and of one with everything stored, how many nodes there were, and what the store
    takes."""
    cold, warm = [], []
    nodes = 2 * WIDTH * outer + 1  # with the two that the manifest has
    for _ in range(RUNS):
        with common.scratch() as dir:
            path = manifest(dir / "loops.jsonl", outer, rounds)
            for runs, outcome in ((cold, "ran"), (warm, "cached")):
                run = common.run(args.forkyard, path, dir / "store", "--workers", str(CORES))
                common.check(run.finished[outcome] == nodes, f"{run.finished[outcome]} of {nodes} nodes {outcome}")
                runs.append(run.wall_s)
            goal = subprocess.run([args.forkyard, "results", "cat", "goal", "--store", dir / "store"], capture_output=True, text=True)
            common.check(goal.stdout.strip() == str(answer(outer)), f"goal is {goal.stdout}, not {answer(outer)}: {goal.stderr}")
            store = sum(file.stat().st_size for file in (dir / "store").rglob("*") if file.is_file())
    return median(cold), median(warm), nodes, store


def main():
    rounds = {"type": int, "choices": [0, 1], "help": "only kernels of so many rounds"}
    args = common.arguments(__doc__, example="loops", rounds=rounds)
    rows = []
    for (outer, rounds), other in OTHER_S.items():
        if args.rounds not in (None, rounds):
            continue
        cold, warm, nodes, store = measure(args, outer, rounds)
        what = f"{outer} x {WIDTH} ({nodes:,} nodes), R = {rounds}"
        if rounds:
            bare = median(ideal(outer * WIDTH * rounds) for _ in range(RUNS))
            rows.append((f"{what}: time to that of the kernels alone", cold / bare, common.at_most(GOAL_OF_IDEAL)))
        rows.append((f"{what}: nodes/s, stored", nodes / cold, None if rounds else common.at_least(GOAL_NODES_PER_S)))
        rows += [(f"{what}: VoxLogicA-2, nodes/s", nodes / other, None), (f"{what}: again, s", warm, None)]
        rows.append((f"{what}: store, MB", store / 1e6, None))
    common.table(*rows)


if __name__ == "__main__":
    main()
