#!/usr/bin/env python3
"""A chain: 100,000 noop nodes, each needing the one before. Nothing can go side by side, so all is overhead."""

from statistics import median

import common

NODES, RUNS = 100_000, 5
GOAL_S = 0.5


def main():
    args = common.arguments(__doc__)
    nodes = [{"id": f"n{i}", "op": "noop", "needs": [f"n{i - 1}"] if i else []} for i in range(NODES)]
    with common.scratch() as dir:
        manifest = common.write_manifest(dir / "chain.jsonl", nodes)
        runs = [common.run(args.forkyard, manifest, dir / f"store-{i}") for i in range(RUNS)]
    for run in runs:
        common.check(run.finished["ran"] == NODES, f"{run.finished['ran']} of {NODES} nodes ran")
    walls = [run.wall_s for run in runs]
    print(f"seconds from command to exit: {', '.join(f'{wall:.3f}' for wall in walls)}")
    common.table(
        ("s, command to exit (median)", median(walls), common.at_most(GOAL_S)),
        ("s, by wall_s (median)", median(run.finished["wall_s"] for run in runs), None),
    )


if __name__ == "__main__":
    main()
