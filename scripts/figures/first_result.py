#!/usr/bin/env python3
"""From the command to the first result on two workers, beside multiprocessing.Pool(2) from its command on."""

import subprocess
import sys
import time
from statistics import median

import common

NODES, RUNS, WORKERS = 100, 20, 2
GOAL_MS = 30

PEER = f"""
from multiprocessing import Pool
with Pool({WORKERS}) as pool:
    results = pool.imap_unordered(abs, range({NODES}))
    print(next(results), flush=True)
    list(results)
"""


def first_result_s(forkyard, manifest, store):
    start = time.perf_counter()
    with common.watch(forkyard, manifest, store, "--workers", str(WORKERS)) as (_, events):
        first = next((event for event in events if event["event"] == "node_finished"), None)
        seconds = time.perf_counter() - start
    common.check(first and first["outcome"] == "ran", f"the first node did not run: {first}")
    return seconds


def peer_first_result_s():
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", PEER], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        return time.perf_counter() - start


def main():
    args = common.arguments(__doc__)
    with common.scratch() as dir:
        nodes = [{"id": f"n{i}", "op": "noop"} for i in range(NODES)]
        manifest = common.write_manifest(dir / "first.jsonl", nodes)
        ours = [first_result_s(args.forkyard, manifest, dir / f"store-{i}") for i in range(RUNS)]
    peers = [peer_first_result_s() for _ in range(RUNS)]
    print(f"ms of {RUNS} runs: forkyard {1e3 * min(ours):.1f} to {1e3 * max(ours):.1f}, "
          f"Pool {1e3 * min(peers):.1f} to {1e3 * max(peers):.1f}")
    common.table(
        ("ms to the first result (median)", 1e3 * median(ours), common.at_most(GOAL_MS)),
        ("multiprocessing.Pool, the same", 1e3 * median(peers), None),
    )


if __name__ == "__main__":
    main()
