#!/usr/bin/env python3
"""A million noop nodes with three needs each, drawn from all nodes before: cold (a fresh store each), and the same again."""

import random
import resource
from statistics import median

import common

NEEDS, RUNS, SEED = 3, 3, 7
GOAL_COLD_S, GOAL_WARM_S, GOAL_MB = 2.5, 1.2, 250


def write(path, nodes, seed, layer=None):
    """The manifest; its needs are the same for a seed: of all nodes before, or of the layer before. How many needs there are
    in all."""
    choose, edges = random.Random(seed).randrange, 0
    with open(path, "w") as file:
        file.write('{"forkyard": 1}\n')
        for node in range(nodes):
            end = node // layer * layer if layer else node
            needs = {choose(end - layer if layer else 0, end) for _ in range(NEEDS)} if end else ()
            edges += len(needs)
            listed = ", ".join(f'"node-{need}"' for need in needs)
            file.write(f'{{"id": "node-{node}", "op": "noop", "needs": [{listed}]}}\n')
    return edges


def checked(what, runs, outcome, nodes):
    """The median of the seconds of runs in which every node had this outcome."""
    for run in runs:
        common.check(run.finished[outcome] == nodes, f"{what}: {run.finished[outcome]} of {nodes} nodes {outcome}")
    print(f"{what}, seconds from command to exit: {', '.join(f'{run.wall_s:.3f}' for run in runs)}")
    return median(run.wall_s for run in runs)


def peak_mb():
    """The most that a process held that has ended: the coordinator is by far the largest."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


def main():
    size = {"type": int, "default": 1_000_000, "metavar": "N", "help": "so many nodes"}
    layer = {"type": int, "metavar": "N", "help": "in layers of so many, each of which needs nodes of the one before"}
    args = common.arguments(__doc__, nodes=size, layer=layer)
    print(f"{args.nodes:,} nodes{f' in layers of {args.layer}' if args.layer else ''}, seed {SEED}")
    with common.scratch() as dir:
        manifest = dir / "million.jsonl"
        edges = write(manifest, args.nodes, SEED, args.layer)
        print(f"{edges:,} needs, {manifest.stat().st_size / 1e6:.0f} MB")
        cold = [common.run(args.forkyard, manifest, dir / f"store-{i}", "--workers", "2") for i in range(RUNS)]
        store = sum(file.stat().st_size for file in (dir / "store-0").rglob("*") if file.is_file())
        cold_mb = peak_mb()
        warm = [common.run(args.forkyard, manifest, dir / "store-0", "--workers", "2") for _ in range(RUNS)]
        cold_s = checked("cold", cold, "ran", args.nodes)
        warm_s = checked("again", warm, "cached", args.nodes)
    million = args.nodes == 1_000_000 and not args.layer

    def goal(limit):
        return common.at_most(limit) if million else None

    common.table(
        ("cold, s (median)", cold_s, goal(GOAL_COLD_S)),
        ("cold, nodes/s", args.nodes / cold_s, None),
        ("again, s (median)", warm_s, goal(GOAL_WARM_S)),
        ("memory of the coordinator, MB (most), cold", cold_mb, goal(GOAL_MB)),
        ("bytes a node", cold_mb * 1e6 / args.nodes, None),
        ("memory, MB, of all runs", peak_mb(), None),
        ("store, MB", store / 1e6, None),
    )


if __name__ == "__main__":
    main()
