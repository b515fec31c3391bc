#!/usr/bin/env python3
"""Python nodes beside multiprocessing and Ray: what a hundred workers hold, what a node costs in batches and one by one,
coroutines side by side, and how soon a hundred workers are there.

    scripts/figures/python.py                   all of it
    scripts/figures/python.py --noop --one      only these: memory, noop, one, concurrent, start
    scripts/figures/python.py --peers           with Ray, which pip installs into target/peers the first time

Nodes and peers run on the Python of scripts/python, Ray on one of the same version.
"""

import contextlib
import functools
import json
import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import common
from memory_100 import COLUMNS, MIB, ROWS, SEED, WORKERS, random_rows, write_npy
from tree_memory import tree_memory

RUNS = 3
HOLD_S, WAIT_S, PATIENCE_S = 5, 10, 60
NOOPS, NOOP_WORKERS = 200_000, 2
CHAIN = 3_000
SLEEPERS, SLEEP_S, SLEEP_WORKERS, CONCURRENCY = 1_000, 0.5, 4, 250
RAY, RAY_NOOPS = "ray==2.*", 20_000
GOAL_PSS_MIB, GOAL_NOOPS_PER_S, GOAL_ONE_US, GOAL_CONCURRENT_S = 700, 60_000, 150, 1.5
GOAL_START_S, GOAL_CHILD_MIB = 1.5, 2

# What forkyard sets by itself: no threads in each worker's BLAS beside the workers.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

SCAN = f"""
import time
import forkyard
import numpy

def scan(row):
    matrix = forkyard.artifact("m")
    nearest = int((matrix @ matrix[row]).argmax())
    time.sleep({HOLD_S})    # Nobody does two.
    return nearest

def wait(worker):
    time.sleep({WAIT_S})
"""

POOL_SCAN = f"""
import json, multiprocessing, os, sys, time
import numpy

def scan(row):
    nearest = int((matrix @ matrix[row]).argmax())
    time.sleep({HOLD_S})
    return nearest, os.getpid()

matrix = numpy.load(sys.argv[1], mmap_mode="r")
with multiprocessing.get_context("fork").Pool({WORKERS}) as pool:
    print(json.dumps(pool.map(scan, range(0, {WORKERS} * {ROWS // WORKERS}, {ROWS // WORKERS}), 1)), flush=True)
    input()
"""

PLAIN = f"""
import asyncio

def noop(item):
    pass

def step(x):
    return x + 1

async def sleep(item):
    await asyncio.sleep({SLEEP_S})
    return item
"""

POOL_NOOP = f"""
import multiprocessing, time

def noop(item):
    pass

with multiprocessing.get_context("fork").Pool({NOOP_WORKERS}) as pool:
    pool.map(noop, range(1000))
    start = time.perf_counter()
    pool.map(noop, range({NOOPS}))
    print({NOOPS} / (time.perf_counter() - start))
"""

POOL_ONE = f"""
import multiprocessing, time
from statistics import median

def step(x):
    return x + 1

with multiprocessing.get_context("fork").Pool(1) as pool:
    x, times = 0, []
    for _ in range({CHAIN}):
        start = time.perf_counter()
        x = pool.apply(step, (x,))
        times.append(time.perf_counter() - start)
assert x == {CHAIN}
print(1e6 * median(times))
"""

RAY_BOTH = f"""
import json, logging, time
from statistics import median
import ray

@ray.remote
def noop(item):
    pass

@ray.remote
def step(x):
    return x + 1

ray.init(num_cpus={NOOP_WORKERS}, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ray.get([noop.remote(item) for item in range(1000)])
start = time.perf_counter()
ray.get([noop.remote(item) for item in range({RAY_NOOPS})])
per_s = {RAY_NOOPS} / (time.perf_counter() - start)
x, times = 0, []
for _ in range({CHAIN}):
    start = time.perf_counter()
    x = ray.get(step.remote(x))
    times.append(time.perf_counter() - start)
assert x == {CHAIN}
ray.shutdown()
print(json.dumps({{"version": ray.__version__, "per_s": per_s, "one_us": 1e6 * median(times)}}))
"""

# Some 20 MB, and some tenths of a second. All workers meet at the script's gate, so that each has one node.
HEAVY = f"""
import json, os, socket, time
import numpy

BEGUN = time.perf_counter()
TABLE = {{f"key {{n}}": json.loads(json.dumps([f"value {{n}}", {{"n": n}}])) for n in range(43_000)}}
SECONDS = time.perf_counter() - BEGUN

def meet(worker, gate):
    with socket.socket(socket.AF_UNIX) as there:
        there.settimeout({PATIENCE_S})
        there.connect(gate)
        there.sendall(b"%d" % os.getpid())
        there.recv(1)
    return SECONDS
"""

POOL_MEET = f"""
import multiprocessing, sys
import nodes

with multiprocessing.get_context("fork").Pool({WORKERS}) as pool:
    pool.starmap(nodes.meet, [(worker, sys.argv[1]) for worker in range({WORKERS})], 1)
"""


@functools.cache
def python():
    """The Python for nodes, with numpy."""
    script = common.ROOT / "scripts" / "python"
    return subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


@functools.cache
def ray():
    """What Ray does, {} where it cannot be installed."""
    venv = common.ROOT / "target" / "peers"
    done = venv / RAY.replace("*", "x")     # Made last, so that an interrupted installation is begun anew.
    try:
        if not done.exists():
            subprocess.run([python(), "-m", "venv", "--clear", venv], check=True)
            subprocess.run([venv / "bin" / "pip", "install", "--quiet", RAY, "numpy"], check=True)
            done.touch()
        found = peer(venv / "bin" / "python", RAY_BOTH)
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        print(f"no Ray: {error}", file=sys.stderr)
        return {}
    print(f"Ray {found['version']}")
    return found


def of_ray(args, what):
    return ray().get(what) if args.peers else None


def peer(interpreter, source):
    """What a program says on its last line."""
    env = {**os.environ, **ONE_THREAD, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([interpreter, "-c", source], stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def manifest(dir, source, nodes, artifacts=None, **settings):
    """A manifest of nodes that call functions of nodes.py."""
    (dir / "nodes.py").write_text(source)
    header = {"python": {"interpreter": python(), **settings}, **({"artifacts": artifacts} if artifacts else {})}
    return common.write_manifest(dir / "python.jsonl", nodes, **header)


def call(id, function, **more):
    return {"id": id, "op": "python", "call": f"nodes.py:{function}", **more}


def fan(id, function, count, **more):
    return call(id, function, foreach="{{ range(0, %d) }}" % count, **{"args": ["{{ item }}"], **more})


def result(args, dir, store, node):
    cat = [args.forkyard, "results", "cat", node, "--store", dir / store]
    return json.loads(subprocess.run(cat, cwd=dir, capture_output=True, check=True).stdout)


def memory(args, dir):
    """A hundred workers that have each scanned one matrix of 250 MiB, all of them alive."""
    print(f"\nmemory: seed {SEED}")
    matrix = write_npy(dir / "matrix.npy", ROWS, COLUMNS, random_rows(random.Random(SEED)))
    row = "{{ item * %d }}" % (ROWS // WORKERS)
    nodes = [
        fan("scan", "scan", WORKERS, args=[row], artifact="m"),
        fan("wait", "wait", WORKERS, needs=["scan"]),
    ]
    path = manifest(dir, SCAN, nodes, artifacts={"m": {"path": "matrix.npy"}})
    scanned = set()
    with common.watch(args.forkyard, path, dir / "store", "--workers", str(WORKERS)) as (process, events):
        ends = (event for event in events if event["event"] == "node_finished")
        for event in ends:
            common.check(event["outcome"] == "ran", f"{event['node']}: {event}")
            if event["node"] == "scan":
                break
            scanned.add(event["worker"])
        begun = time.perf_counter()
        processes, ours = tree_memory(process.pid)
        common.check(time.perf_counter() - begun < WAIT_S, "measuring took longer than the workers wait")
    common.check(len(scanned) == WORKERS, f"{len(scanned)} workers scanned the matrix, not {WORKERS}")
    for i in range(WORKERS):
        found = result(args, dir, "store", f"scan[{i}]")
        common.check(found == i * (ROWS // WORKERS), f"scan[{i}]: a row is nearest to itself, not {found}")
    peer_processes, peers = pool_memory(matrix)
    print(f"{processes} processes, {peer_processes} of multiprocessing; a matrix of {matrix.stat().st_size / MIB:.1f} MiB")
    common.table(
        ("MiB, proportional (PSS), all processes", ours["Pss"] / MIB, common.at_most(GOAL_PSS_MIB)),
        ("MiB, private, all processes", private(ours) / MIB, None),
        ("MiB, page tables (VmPTE)", ours["VmPTE"] / MIB, None),
        (f"multiprocessing, Pool({WORKERS}): MiB, PSS", peers["Pss"] / MIB, None),
        ("multiprocessing: MiB, private", private(peers) / MIB, None),
        ("multiprocessing: MiB, page tables", peers["VmPTE"] / MIB, None),
    )


def pool_memory(matrix):
    command = [python(), "-c", POOL_SCAN, matrix]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
    ) as process:
        found = json.loads(process.stdout.readline())
        measured = tree_memory(process.pid)
        process.communicate("\n")
    nearest = [row for row, _ in found]
    common.check(nearest == [i * (ROWS // WORKERS) for i in range(WORKERS)], f"multiprocessing: {nearest}")
    scanned = {pid for _, pid in found}
    common.check(len(scanned) == WORKERS, f"{len(scanned)} of the pool scanned the matrix, not {WORKERS}")
    return measured


def private(fields):
    return fields["Private_Clean"] + fields["Private_Dirty"]


def noop(args, dir):
    """Nodes that do nothing, durable and memoised, as fast as they go."""
    print(f"\nnoop: {NOOPS:,} nodes, {NOOP_WORKERS} workers, {RUNS} cold runs")
    path = manifest(dir, PLAIN, [fan("n", "noop", NOOPS)])
    workers = ["--workers", str(NOOP_WORKERS)]
    colds = [common.run(args.forkyard, path, dir / f"store-{i}", *workers) for i in range(RUNS)]
    cached = common.run(args.forkyard, path, dir / "store-0", *workers)
    for cold in colds:
        common.check(cold.finished["ran"] == NOOPS + 1, f"{cold.finished['ran']} of {NOOPS + 1} nodes ran")
    common.check(cached.finished["cached"] >= NOOPS, f"{cached.finished['cached']} of {NOOPS} nodes were cached")
    print(f"seconds from command to exit: {', '.join(f'{cold.wall_s:.3f}' for cold in colds)}; cached {cached.wall_s:.3f}")
    common.table(
        ("nodes/s, command to exit (median)", NOOPS / median(cold.wall_s for cold in colds), common.at_least(GOAL_NOOPS_PER_S)),
        ("nodes/s, by wall_s (median)", NOOPS / median(cold.finished["wall_s"] for cold in colds), None),
        ("nodes/s, cached, command to exit", NOOPS / cached.wall_s, None),
        (f"multiprocessing, Pool({NOOP_WORKERS}).map, calls/s", median(peer(python(), POOL_NOOP) for _ in range(RUNS)), None),
        (f"Ray, {RAY_NOOPS:,} calls and one get, calls/s", of_ray(args, "per_s"), None),
    )


def one(args, dir):
    """A chain in which each node takes the result of the one before."""
    print(f"\none: a chain of {CHAIN:,} nodes, {RUNS} runs")
    nodes = [call("n0", "step", params={"x": 0})]
    nodes += [call(f"n{i}", "step", params={"x": "{{ nodes.n%d.result }}" % (i - 1)}) for i in range(1, CHAIN)]
    path = manifest(dir, PLAIN, nodes)
    runs, pools = [], []
    for i in range(RUNS):
        with common.watch(args.forkyard, path, dir / f"store-{i}") as (process, _):
            lines = process.stdout.readlines()      # Understood afterwards, for that would take a core meanwhile.
        ends = [event for event in map(json.loads, lines) if event["event"] == "node_finished"]
        common.check(len(ends) == CHAIN and all(end["outcome"] == "ran" for end in ends), f"{len(ends)} of {CHAIN} ended")
        found = result(args, dir, f"store-{i}", f"n{CHAIN - 1}")
        common.check(found == CHAIN, f"{CHAIN} steps lead to {found}")
        runs.append(sorted(1e6 * (after["t"] - before["t"]) for before, after in zip(ends, ends[1:])))
        pools.append(peer(python(), POOL_ONE))
    print(f"us, p50 of each run: forkyard {', '.join(f'{median(run):.0f}' for run in runs)}; "
          f"Pool(1).apply {', '.join(f'{pool:.0f}' for pool in pools)}")
    common.table(
        ("us between two ends, p50 (median)", median(map(median, runs)), common.at_most(GOAL_ONE_US)),
        ("us between two ends, mean (median)", median(map(mean, runs)), None),
        ("us between two ends, p99 (median)", median(run[len(run) * 99 // 100] for run in runs), None),
        ("multiprocessing, Pool(1).apply, us, p50 (median)", median(pools), None),
        ("Ray, a call and its get, us, p50", of_ray(args, "one_us"), None),
    )


def concurrent(args, dir):
    """Coroutines that sleep, many in each worker."""
    print(f"\nconcurrent: {SLEEPERS:,} coroutines of {SLEEP_S} s, {SLEEP_WORKERS} workers of {CONCURRENCY}")
    path = manifest(dir, PLAIN, [fan("n", "sleep", SLEEPERS)], concurrency=CONCURRENCY)
    workers = ["--workers", str(SLEEP_WORKERS)]
    runs = [common.run(args.forkyard, path, dir / f"store-{i}", *workers) for i in range(RUNS)]
    for run in runs:
        common.check(run.finished["ran"] == SLEEPERS + 1, f"{run.finished['ran']} of {SLEEPERS + 1} nodes ran")
    last = result(args, dir, "store-0", f"n[{SLEEPERS - 1}]")
    common.check(last == SLEEPERS - 1, f"the last returned {last}")
    print(f"seconds from command to exit: {', '.join(f'{run.wall_s:.3f}' for run in runs)}")
    common.table(
        ("s, command to exit (median)", median(run.wall_s for run in runs), common.at_most(GOAL_CONCURRENT_S)),
        ("s, by wall_s (median)", median(run.finished["wall_s"] for run in runs), None),
        ("s, if nothing cost anything", SLEEP_S * SLEEPERS / (SLEEP_WORKERS * CONCURRENCY), None),
    )


def start(args, dir):
    """A hundred workers with numpy and a heavy module: when each has answered, and what each holds for itself."""
    print(f"\nstart: {WORKERS} workers with numpy and a heavy module, {RUNS} runs, and one to look at their memory")
    gate = dir / "gate"
    nodes = [fan("n", "meet", WORKERS, args=["{{ item }}", str(gate)])]
    path = manifest(dir, HEAVY, nodes, preload=["numpy", "nodes"])
    with socket.socket(socket.AF_UNIX) as here:
        here.settimeout(PATIENCE_S)
        here.bind(str(gate))
        here.listen(WORKERS)
        ours = [meeting(args, path, dir / f"store-{i}", here) for i in range(RUNS)]
        held = meeting(args, path, dir / "store-memory", here, look=True).private
        pools = [pool_meeting(dir, gate, here) for _ in range(RUNS)]
        pool_held = pool_meeting(dir, gate, here, look=True).private
    heavy_s = result(args, dir, "store-0", "n[0]")
    walls = ", ".join(f"{one.wall_s:.3f}" for one in ours)
    print(f"seconds from command to exit: {walls}; {heavy_s:.3f} of them import the heavy module")
    common.table(
        ("s, command to exit (median)", median(one.wall_s for one in ours), common.at_most(GOAL_START_S)),
        ("s, until all are at work (median)", median(one.met_s for one in ours), None),
        ("MiB, private, a Python process, mean", mean(held) / MIB, common.at_most(GOAL_CHILD_MIB)),
        ("MiB, private, a Python process, max", max(held) / MIB, common.at_most(GOAL_CHILD_MIB)),
        (f"multiprocessing, Pool({WORKERS}): s, command to exit", median(one.wall_s for one in pools), None),
        ("multiprocessing: s, until all are at work", median(one.met_s for one in pools), None),
        ("multiprocessing: MiB, private, mean", mean(pool_held) / MIB, None),
    )


@dataclass
class Meeting:
    """All workers were there at once: seconds from the command on, and private bytes of each process if looked at."""

    met_s: float
    private: list
    wall_s: float


def meeting(args, path, store, gate, look=False):
    begun = time.perf_counter()
    with common.watch(args.forkyard, path, store, "--workers", str(WORKERS)) as (_, events):
        met_s, private = meet(gate, begun, look)
        workers = {event["worker"] for event in events if event["event"] == "node_finished" and "worker" in event}
    common.check(len(workers) == WORKERS, f"{len(workers)} workers had the nodes, not {WORKERS}")
    return Meeting(met_s, private, time.perf_counter() - begun)


def pool_meeting(dir, path, gate, look=False):
    begun = time.perf_counter()
    with subprocess.Popen([python(), "-c", POOL_MEET, path], cwd=dir, env={**os.environ, **ONE_THREAD}) as process:
        met_s, private = meet(gate, begun, look)
    common.check(process.returncode == 0, f"multiprocessing: exit code {process.returncode}")
    return Meeting(met_s, private, time.perf_counter() - begun)


def meet(gate, begun, look):
    """Waits until all processes are at the gate, perhaps looks at them, and lets them through."""
    with contextlib.ExitStack() as waiting:
        pids = {int(waiting.enter_context(gate.accept()[0]).recv(16)) for _ in range(WORKERS)}
        met_s = time.perf_counter() - begun
        common.check(len(pids) == WORKERS, f"{len(pids)} processes, not {WORKERS}")
        return met_s, [private_bytes(pid) for pid in pids] if look else []


def private_bytes(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


FIGURES = [memory, noop, one, concurrent, start]


def main():
    flags = {figure.__name__: figure.__doc__ for figure in FIGURES}
    args = common.arguments(__doc__, **flags, peers="with Ray, installed into target/peers the first time")
    version = peer(python(), "import json, numpy; print(json.dumps(numpy.__version__))")
    print(f"{python()} with numpy {version}")
    chosen = [figure for figure in FIGURES if getattr(args, figure.__name__)]
    for figure in chosen or FIGURES:
        with common.scratch() as dir:
            figure(args, dir)


if __name__ == "__main__":
    main()
