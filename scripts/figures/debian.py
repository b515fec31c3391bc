#!/usr/bin/env python3
"""A real graph: the 63,436 packages of Debian as noop nodes, cold (a fresh store each) and warm (all stored)."""

import graphlib
import gzip
import json
import multiprocessing
import time
from statistics import median

import common

NODES, RUNS, PEER_WORKERS = 63_436, 5, 2
GOAL_COLD_NODES_PER_S, GOAL_WARM_S = 150_000, 0.2


def manifest_of(packages, path):
    with gzip.open(packages, "rt") as lines:
        packages = [json.loads(line) for line in lines]
    nodes = ({"id": package["id"], "op": "noop", "needs": package["deps"]} for package in packages)
    return common.write_manifest(path, nodes)


def noop(id):
    return id


def peer(manifest):
    """Seconds that graphlib and a Pool take for the same manifest.

    In its favour: the interpreter has started, nothing is stored, and it may send all that is ready in chunks.
    """
    start = time.perf_counter()
    with open(manifest) as lines:
        next(lines)
        nodes = map(json.loads, lines)
        sorter = graphlib.TopologicalSorter({node["id"]: node["needs"] for node in nodes})
    sorter.prepare()
    with multiprocessing.Pool(PEER_WORKERS) as pool:
        while sorter.is_active():
            for id in pool.imap_unordered(noop, sorter.get_ready(), chunksize=64):
                sorter.done(id)
    return time.perf_counter() - start


def checked_s(what, runs, outcome):
    """The median of the seconds of runs in which every node had this outcome."""
    for run in runs:
        common.check(run.finished[outcome] == NODES, f"{what}: {run.finished[outcome]} of {NODES} nodes {outcome}")
    walls = [run.wall_s for run in runs]
    print(f"{what}, seconds from command to exit: {', '.join(f'{wall:.3f}' for wall in walls)}")
    return median(walls)


def main():
    args = common.arguments(__doc__, peer="run Python's graphlib and multiprocessing.Pool beside it")
    packages = common.data("debian-deps/dag.jsonl.gz")
    with common.scratch() as dir:
        manifest = manifest_of(packages, dir / "debian.jsonl")
        cold = [common.run(args.forkyard, manifest, dir / f"store-{i}") for i in range(RUNS)]
        warm = [common.run(args.forkyard, manifest, dir / "store-0") for _ in range(RUNS)]
        rows = [
            ("cold, nodes/s (median)", NODES / checked_s("cold", cold, "ran"), common.at_least(GOAL_COLD_NODES_PER_S)),
            ("warm, s (median)", checked_s("warm", warm, "cached"), common.at_most(GOAL_WARM_S)),
        ]
        if args.peer:
            rows.append(("graphlib + Pool, nothing stored, nodes/s (median)", NODES / median(peer(manifest) for _ in range(RUNS)), None))
    common.table(*rows)


if __name__ == "__main__":
    main()
