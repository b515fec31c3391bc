#!/usr/bin/env python3
"""Recorded workflows (WfCommons), with sleeping for computing: how long `plan` says that a run takes, and how long it does.

Each is scaled so that some seconds are predicted for these workers. What the measured time has more is all that
Forkyard costs: starting, keys, messages, waking up, the store.
"""

import json
import subprocess

import common

WORKERS, RUN_S = (2, 16), 8.0
GOAL_RATIO = 1.05


def imported(forkyard, trace, path, scale, op="sleep"):
    """The manifest of a trace whose tasks take so many times as long."""
    command = [forkyard, "import", "wfformat", trace, "--time-scale", f"{scale:.9g}", "--op", op]
    with open(path, "w") as file:
        subprocess.run(command, stdout=file, check=True)
    return path


def plan(forkyard, manifest, workers, store):
    """What is said before the run."""
    command = [forkyard, "plan", manifest, "--json", "--workers", str(workers), "--store", store]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main():
    args = common.arguments(__doc__)
    folder = common.data("workflows")
    traces = sorted(path for path in folder.glob("*.json") if path.name != "expected.json")
    width = max(len(trace.stem) for trace in traces)
    print(f"{'':<{width}}{'nodes':>8}{'workers':>9}{'predicted, s':>14}{'measured, s':>13}{'ratio':>8}")
    ratios = []
    with common.scratch() as dir:
        for trace in traces:
            for workers in WORKERS:
                store = dir / f"{trace.stem}-{workers}"
                manifest = imported(args.forkyard, trace, dir / "m.jsonl", 1)
                scale = RUN_S / plan(args.forkyard, manifest, workers, store)["makespan_s"]
                manifest = imported(args.forkyard, trace, manifest, scale)
                predicted = plan(args.forkyard, manifest, workers, store)
                run = common.run(args.forkyard, manifest, store, "--workers", str(workers))
                ran, nodes, s = run.finished["ran"], predicted["nodes"], predicted["makespan_s"]
                common.check(ran == nodes, f"{trace.name}: {ran} of {nodes} nodes ran")
                ratios.append(run.wall_s / s)
                print(f"{trace.stem:<{width}}{nodes:>8,}{workers:>9}{s:>14.3f}{run.wall_s:>13.3f}{ratios[-1]:>8.3f}")
    common.table(("measured to predicted, the worst", max(ratios), common.at_most(GOAL_RATIO)))


if __name__ == "__main__":
    main()
