#!/usr/bin/env python3
"""State across processes: the copy-on-write benchmark of Gecko Compose in its six configurations, and a layered DAG
in which every node sets and reads the same 100 keys. Every node runs in a worker process; every answer is checked
against its closed form, or against a plain model that copies what every ancestor wrote.

    scripts/figures/state.py            all of it, three runs each
    scripts/figures/state.py small      only this: small, medium, large, dispatch, layered
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "target/release/examples/state_ops"
RUNS = 3


def run(space, manifest, workers=2, more=()):
    """One run in a fresh store: its events, and its peak of coordinator memory in MB."""
    command = [PROGRAM, "run", manifest, "--workers", str(workers), "--json", "--events", "all", "--store", "s", *more]
    done = subprocess.run(["/usr/bin/time", "-f", "%M", *command], cwd=space, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{manifest}: exit {done.returncode}\n{done.stderr[-2000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return events, int(done.stderr.split()[-1]) / 1024


def seconds(events, first):
    """From the start of the run to the result of the last node, without reading the manifest."""
    start = next(event["t"] for event in events if event["event"] == "run_started")
    return max(event["t"] for event in events if event["event"] == "node_finished") - start


def result(space, node):
    command = [PROGRAM, "results", "cat", node, "--store", "s"]
    return json.loads(subprocess.run(command, cwd=space, capture_output=True, check=True).stdout)


def cow(layers, width, history):
    nodes = []
    for step in range(history):
        value = {"timestamp": float(step), "data": list(range(100)),
                 "nested": {"values": [step * i for i in range(20)], "computed": step * step}}
        nodes.append({"id": f"step_{step}", "op": "value", "params": {"value": value}})
    needs = [f"step_{step}" for step in range(history)]
    nodes.append({"id": "entry", "op": "value", "needs": needs, "params": {"value": {"sum": 0, "count": 0}}})
    before = ["entry"]
    for layer in range(1, layers + 1):
        now = [f"n{layer}_{node}" for node in range(width)]
        for node, name in enumerate(now):
            params = {"layer": layer, "node": node}
            nodes.append({"id": name, "op": "cow", "needs": before, "params": params, "reads": "state"})
        before = now
    nodes.append({"id": "end", "op": "get", "needs": before, "reads": "state"})
    return nodes


def write(space, nodes):
    text = "\n".join(json.dumps(node) for node in nodes)
    (space / "m.jsonl").write_text(text + "\n")


def measure(name, nodes, check):
    times, memory = [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
            space = Path(directory)
            write(space, nodes)
            events, peak = run(space, "m.jsonl")
            # The last node only looks at the state, for the check.
            events = [event for event in events if event.get("node") != "end"]
            times.append(seconds(events, nodes[0]["id"]))
            memory.append(peak)
            check(space)
    print(f"{name:16} {len(nodes) - 1:6} nodes  {1000 * statistics.median(times):9.1f} ms"
          f"  ({1000 * min(times):.1f} to {1000 * max(times):.1f})  coordinator {max(memory):.0f} MB")
    return statistics.median(times)


def cow_check(layers, width):
    def check(space):
        totals = 0
        for layer in range(1, layers + 1):
            for node in range(width):
                want = 4950 * (layer * (layer - 1) // 2 * (width * (width - 1) // 2) + layer * node)
                if layer in (1, layers):
                    out = result(space, f"n{layer}_{node}")
                    assert out["total"] == want and len(out) == 53, (layer, node, out["total"], want)
                totals += want
        state = result(space, "end")
        assert len(state) == 100 * layers * width
        assert sum(state.values()) == 4950 * (layers * (layers + 1) // 2) * (width * (width - 1) // 2)
    return check


def layered(layers, width):
    choose = random.Random(7)
    nodes, model = [], []
    for number in range(layers * width):
        layer = number // width
        parents = []
        if layer:
            first = (layer - 1) * width
            parents = sorted(choose.sample(range(first, first + width), 3))
        nodes.append({"id": f"c{number}", "op": "cells", "needs": [f"c{p}" for p in parents],
                      "params": {"seed": number}, "reads": [f"k{k}" for k in range(100)]})
        # Every ancestor wrote every key: the one of the highest rank is the last parent, or no one.
        before = model[parents[-1]] if parents else [0] * 100
        model.append([(value * 31 + number * 7 + key) % 1_000_003 for key, value in enumerate(before)])
        nodes[-1]["sum"] = sum(before)
    sums = [node.pop("sum") for node in nodes]
    nodes.append({"id": "end", "op": "get", "needs": [f"c{layers * width - 1}"], "reads": "state"})

    def check(space):
        listed = subprocess.run([PROGRAM, "results", "export", "--format", "jsonl", "-", "--store", "s"],
                                cwd=space, capture_output=True, check=True, text=True).stdout
        seen = {row["node"]: row["value"] for row in map(json.loads, listed.splitlines())}
        wrong = [number for number, want in enumerate(sums) if seen[f"c{number}"] != want]
        assert not wrong, (len(wrong), wrong[:5])
        assert result(space, "end") == {f"k{key}": value for key, value in enumerate(model[-1])}
    return nodes, check


def dispatch():
    """What a node costs that reads one variable, beside one and beside a million."""
    nodes, times = 20_000, {1: [], 1_000_000: []}
    node = {"id": "g", "op": "get", "foreach": "{{ range(0, %d) }}" % nodes, "params": {"keys": ["k0"]},
            "reads": ["k0"], "salt": "{{ index }}"}
    for _ in range(RUNS):
        for keys in times:
            with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
                space = Path(directory)
                (space / "m.jsonl").write_text(json.dumps(node) + "\n")
                given = {"v": 1, "vars": {f"k{key}": key for key in range(keys)}}
                (space / "given.json").write_text(json.dumps(given))
                events, _ = run(space, "m.jsonl", more=["--context", "given.json"])
                ends = [event["t"] for event in events if event["event"] == "node_finished" and "worker" in event]
                times[keys].append((max(ends) - min(ends)) / nodes)
                assert result(space, "g[7]") == {"k0": 0}
    few, many = (statistics.median(times[keys]) for keys in times)
    print(f"a node that reads one variable: {1e6 * few:.2f} us beside it alone, {1e6 * many:.2f} us beside a million: "
          f"{many / few:.3f} times (goal 1.05)")


def main():
    subprocess.run(["cargo", "build", "--release", "--example", "state_ops", "-q"], cwd=ROOT, check=True)
    wanted = sys.argv[1:]
    for name, layers, width, deep in [("small", 10, 5, 100), ("medium", 20, 10, 200), ("large", 50, 10, 500)]:
        if wanted and name not in wanted:
            continue
        shallow = measure(f"{name} shallow", cow(layers, width, 0), cow_check(layers, width))
        ratio = measure(f"{name} deep", cow(layers, width, deep), cow_check(layers, width)) / shallow
        print(f"{'':16} deep / shallow {ratio:.2f} (with {deep} nodes more)")
    if not wanted or "dispatch" in wanted:
        dispatch()
    if not wanted or "layered" in wanted:
        measure("layered", *layered(100, 100))


if __name__ == "__main__":
    main()
