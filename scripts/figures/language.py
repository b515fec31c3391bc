#!/usr/bin/env python3
"""The workflow language at scale: fan-outs of 10 to 1,000,000 items beside 100 finished results of 10 KB, pipelines
without a barrier, 100,000 races.

    scripts/figures/language.py             all of it
    scripts/figures/language.py each        only this: foreach, each, races
"""

import heapq
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FORKYARD = ROOT / "target/release/forkyard"


def run(space, manifest, *more, code=0):
    """Runs a manifest: wall seconds, its last event, and the coordinator's own CPU seconds and peak in MB."""
    command = [FORKYARD, "run", manifest, "--json", "--quiet", "--store", "s", *more]
    start = time.monotonic()
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], cwd=space, capture_output=True, text=True)
    wall = time.monotonic() - start
    if done.returncode != code:
        sys.exit(f"{manifest}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return wall, json.loads(done.stdout.splitlines()[-1]), int(done.stderr.split()[-1]) / 1024


def write(space, nodes, header=None):
    lines = ([json.dumps(header)] if header else []) + [json.dumps(node) for node in nodes]
    (space / "m.jsonl").write_text("\n".join(lines) + "\n")


def space():
    return tempfile.TemporaryDirectory(dir=ROOT / "target")


def foreach():
    print("foreach beside 100 finished results of 10 KB (cold, durable; median of 3)")
    before = None
    for items in (10, 100, 1_000, 10_000, 100_000, 1_000_000):
        walls, peaks = [], []
        for _ in range(3):
            with space() as directory:
                directory = Path(directory)
                done = [{"id": f"task_{n}", "op": "value", "params": {"value": {"data": [0] * 5_000}}}
                        for n in range(100)]
                write(directory, done)
                run(directory, "m.jsonl")
                fan = {"id": "fan", "op": "noop", "foreach": "{{ range(0, %d) }}" % items,
                       "needs": [node["id"] for node in done]}
                write(directory, done + [fan])
                wall, _, peak = run(directory, "m.jsonl")
                walls.append(wall)
                peaks.append(peak)
        wall, peak = sorted(walls)[1], max(peaks)
        more = ""
        if before and items > 1000:
            step = items - before[0]
            more = f"   {1e6 * (wall - before[1]) / step:5.2f} us and {1e6 * (peak - before[2]) / step:4.0f} B more an item"
        print(f"  {items:9,} items  {wall:7.3f} s  {peak:6.0f} MB{more}")
        before = (items, wall, peak)


def each():
    workers, items, stages = 8, 200, 3
    choose = random.Random(5)
    times = [[round(choose.uniform(0.002, 0.04), 4) for _ in range(items)] for _ in range(stages)]
    nodes = [{"id": "s0", "op": "sleep", "foreach": times[0], "params": {"seconds": "{{ item }}"}}]
    nodes += [{"id": f"s{n}", "op": "sleep", "each": f"s{n - 1}", "params": {"seconds": "{{ vars.t%d[index] }}" % n}}
              for n in range(1, stages)]
    header = {"forkyard": 1, "vars": {f"t{n}": times[n] for n in range(1, stages)}}
    barrier = sum(schedule([[seconds] for seconds in stage], workers) for stage in times)
    bound = schedule(list(zip(*times)), workers)
    walls = []
    for _ in range(3):
        with space() as directory:
            write(Path(directory), nodes, header)
            walls.append(run(Path(directory), "m.jsonl", "--workers", str(workers))[1]["wall_s"])
    wall = sorted(walls)[1]
    print(f"each: {stages} stages of {items} items on {workers} workers: {wall:.3f} s, "
          f"pipelined bound {bound:.3f} s, ratio {wall / bound:.3f} (goal 1.1); with barriers at best {barrier:.3f} s")


def schedule(chains, workers):
    """The makespan of chains of tasks in a greedy schedule that costs nothing."""
    free, ready, now = workers, [(-sum(chain), number, 0) for number, chain in enumerate(chains)], 0.0
    heapq.heapify(ready)
    running = []
    while ready or running:
        while free and ready:
            _, number, step = heapq.heappop(ready)
            heapq.heappush(running, (now + chains[number][step], number, step))
            free -= 1
        now, number, step = heapq.heappop(running)
        free += 1
        if step + 1 < len(chains[number]):
            heapq.heappush(ready, (-sum(chains[number][step + 1:]), number, step + 1))
    return now


def races():
    count = 100_000
    nodes = []
    for n in range(count):
        nodes += [{"id": f"a{n}", "op": "value", "params": {"value": [n, "a"]}},
                  {"id": f"b{n}", "op": "value", "params": {"value": [n, "b"]}},
                  {"id": f"r{n}", "race": [f"a{n}", f"b{n}"], "publish": {f"w{n}": "{{ result[1] }}"}}]
    with space() as directory:
        directory = Path(directory)
        write(directory, nodes)
        contexts = []
        for turn in ("first", "again"):
            wall, last, peak = run(directory, "m.jsonl")
            assert last["cancelled"] == count and last["ran"] + last["cached"] == 2 * count, last
            export = [FORKYARD, "context", "export", "--store", "s"]
            contexts.append(subprocess.run(export, cwd=directory, capture_output=True, check=True).stdout)
            print(f"races of two, {turn}: {count:,} in {wall:.2f} s, {peak:.0f} MB: "
                  f"{last['ran']:,} ran, {last['cached']:,} cached, {last['cancelled']:,} cancelled")
        winners = json.loads(contexts[0])["vars"]
        assert len(winners) == count and contexts[0] == contexts[1]
        print(f"  one winner each; the same context again ({sum(w == 'a' for w in winners.values()):,} times `a`)")


def main():
    subprocess.run(["cargo", "build", "--release", "-q", "--bin", "forkyard"], cwd=ROOT, check=True)
    for figure in (foreach, each, races):
        if not sys.argv[1:] or figure.__name__ in sys.argv[1:]:
            figure()


if __name__ == "__main__":
    main()
