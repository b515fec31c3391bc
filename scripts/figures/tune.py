#!/usr/bin/env python3
"""What `tune` says of recorded workflows, and what happens: makespan and memory for each number of workers.

Tasks wait as long as they took, scaled so that the run takes some seconds with that number of workers; then the same on
the cores with tasks that compute. Memory is the most that all processes were seen to hold together (PSS) while a run went on.
"""

import json
import subprocess
import threading

import common
from tree_memory import tree_memory
from workflows import imported

TRACES = ["1000genome-chameleon-22ch-250k-001", "epigenomics-chameleon-ilmn-6seq-50k-001", "bwa-chameleon-large-001"]
WAITING, COMPUTING, SECONDS = [1, 2, 4, 8, 16, 32], [1, 2], 7.0
GOAL = 0.10


def tuned(forkyard, manifest, store, workers):
    """What is said of this number of workers."""
    command = [forkyard, "tune", manifest, "--json", "--workers", str(workers), "--store", store, "--sample", "5s"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["table"][0]


def measured(forkyard, manifest, store, workers):
    """Seconds from the start of the run to its end, and the most bytes that all processes held."""
    command = [forkyard, "run", manifest, "--store", store, "--json", "--events", "none", "--workers", str(workers), "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        most, over = [0], threading.Event()

        def look():
            while not over.wait(0.2):
                most[0] = max(most[0], tree_memory(process.pid)[1]["Pss"])

        looker = threading.Thread(target=look)
        looker.start()
        finished = json.loads(process.stdout.read().splitlines()[-1])
        over.set()
        looker.join()
    common.check(process.returncode == 0, f"exit code {process.returncode}")
    return finished["wall_s"], most[0]


def unit(trace, workers):
    """About how long a trace would take as it was recorded."""
    return max(trace["critical_path_seconds"], trace["total_work_seconds"] / workers)


def main():
    args = common.arguments(__doc__)
    folder = common.data("workflows")
    known = json.loads((folder / "expected.json").read_text())
    width = max(map(len, TRACES))
    print(f"{'':<{width}}  {'tasks':<8}{'workers':>8}{'tuned, s':>10}{'took, s':>9}{'ratio':>7}{'tuned, MB':>11}{'held, MB':>10}{'ratio':>7}")
    off, memory_off = 0, 0
    with common.scratch() as dir:
        for trace in TRACES:
            for op, numbers in [("sleep", WAITING), ("spin", COMPUTING)]:
                for workers in numbers:
                    store, manifest = dir / f"{trace}-{op}-{workers}", dir / f"{op}-{workers}.jsonl"
                    imported(args.forkyard, folder / f"{trace}.json", manifest, SECONDS / unit(known[f"{trace}.json"], workers), op)
                    row = tuned(args.forkyard, manifest, store, workers)
                    took, held = measured(args.forkyard, manifest, f"{store}-run", workers)
                    ratio, memory = took / row["makespan_s"], held / row["bytes"]
                    off, memory_off = max(off, abs(ratio - 1)), max(memory_off, abs(memory - 1))
                    does = "waits" if op == "sleep" else "computes"
                    print(f"{trace:<{width}}  {does:<8}{workers:>8}{row['makespan_s']:>10.2f}{took:>9.2f}{ratio:>7.2f}"
                          f"{row['bytes'] / 1e6:>11.1f}{held / 1e6:>10.1f}{memory:>7.2f}", flush=True)
    common.table(
        ("the most that a makespan was off", off, common.at_most(GOAL)),
        ("the most that memory was off", memory_off, common.at_most(GOAL)),
    )


if __name__ == "__main__":
    main()
