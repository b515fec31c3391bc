#!/usr/bin/env python3
"""5,000 topk nodes over 65,000 real embeddings: right by numpy's account, and how near to a bare loop of scans."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import common

NODES, CHECKED, K, SEED, TOLERANCE = 5_000, 500, 10, 20_251, 1e-5
GOAL_OF_BARE = 0.85


def with_numpy():
    """The numpy module; starts the script again in an environment of its own where it is missing."""
    try:
        import numpy
    except ImportError:
        venv = common.WORK / ".venv"
        python = venv / "bin" / "python"
        if Path(sys.prefix) == venv:
            raise
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy"], check=True)
        os.execv(python, [python, *sys.argv])
    return numpy


def check_against_numpy(numpy, matrix_path, found):
    """Each of the ten scores is numpy's at its place, and belongs to the row it names: equal up to ties."""
    matrix = numpy.load(matrix_path).astype(numpy.float32)
    matrix /= numpy.linalg.norm(matrix, axis=1, keepdims=True)
    worst = 0.0
    for row, result in found.items():
        scores = matrix @ matrix[row]
        best = numpy.sort(numpy.partition(scores, -K)[-K:])[::-1]
        common.check(len(set(result["ids"])) == K, f"row {row}: {result['ids']} are not {K} rows")
        for expected in [best, scores[result["ids"]]]:
            away = float(numpy.abs(expected - numpy.array(result["scores"])).max())
            common.check(away <= TOLERANCE, f"row {row}: {away:.2e} away from numpy: {result}")
            worst = max(worst, away)
    print(f"{len(found)} of {NODES} agree with numpy {numpy.__version__} in f32: at most {worst:.1e} away")


def main():
    numpy = with_numpy()            # First, because it may start the script again.
    args = common.arguments(__doc__)
    matrix = common.data("wordnet/embeddings.f16.npy")
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    with common.scratch() as dir:
        rows = chance.sample(range(len(numpy.load(matrix, mmap_mode="r"))), NODES)
        nodes = (
            {"id": f"row-{row}", "op": "topk", "artifact": "m", "params": {"row": row, "k": K, "metric": "cosine"}}
            for row in rows
        )
        manifest = common.write_manifest(dir / "topk.jsonl", nodes, artifacts={"m": {"path": str(matrix)}})
        run = common.run(args.forkyard, manifest, dir / "store")
        common.check(run.finished["ran"] == NODES, f"{run.finished['ran']} of {NODES} nodes ran")
        found = {}
        for row in chance.sample(rows, CHECKED):
            cat = [args.forkyard, "results", "cat", f"row-{row}", "--store", dir / "store"]
            found[row] = json.loads(subprocess.run(cat, cwd=dir, capture_output=True, check=True).stdout)
    check_against_numpy(numpy, matrix, found)
    bare = common.floor("scans", matrix, NODES, os.cpu_count()).get("queries_per_s")
    common.table(
        (f"scans/s, {os.cpu_count()} bare threads", bare, None),
        ("nodes/s, by wall_s", NODES / run.finished["wall_s"], None),
        ("nodes/s, command to exit", NODES / run.wall_s, None),
        ("of the bare threads, command to exit", common.ratio(NODES / run.wall_s, bare), common.at_least(GOAL_OF_BARE)),
    )


if __name__ == "__main__":
    main()
