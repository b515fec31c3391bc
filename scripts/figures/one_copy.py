#!/usr/bin/env python3
"""One copy for all workers: agents that each need the same 208 MB of embeddings, tools and weights, 10 to 150 of them, and
what they hold together when each has touched every page and has answered.

    scripts/figures/one_copy.py                         ops in Rust (examples/one_copy.rs), and ten processes on their own
    scripts/figures/one_copy.py --python                only this: native, python, naive
    scripts/figures/one_copy.py --python --workers 100  so many workers; a list like 10,100

A worker has ten tasks: it looks a text's vector up by the text's MD5, finds the tools and the texts most like it, waits
50 ms for a call that nobody makes, and returns five tools. The files are new, so they are in the page cache.
"""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import common
from python import ONE_THREAD, private, python
from tree_memory import tree, tree_memory

HERE = Path(__file__).parent
ARTIFACTS = {"embeddings": "npy", "texts": "jsonl", "tools": "npy", "index": "npy", "weights": "bin", "registry": "jsonl"}
WORKERS, TASKS_EACH, NAIVE_WORKERS = [10, 20, 64, 100, 150], 10, 10
PATIENCE_S, LOOK_EVERY_S, SCORE_ERROR = 60, 0.05, 1e-6
MB, MIB = 1_000_000, 1 << 20
GOAL_PSS_100, GOAL_MORE_150 = 203 * MB + 60 * MIB, 20 * MIB

NATIVE = {"query": {"op": "query"}, "hold": {"op": "hold"}}
PYTHON = {name: {"op": "python", "call": f"{HERE}/one_copy_nodes.py:{name}"} for name in ["query", "hold"]}


@dataclass
class Measured:
    """What all processes held when all had answered, in bytes, and when that was; `answers` are in the tasks' order."""

    workers: int
    processes: int
    memory: dict
    major_faults: int
    available: list
    all_answered_s: float
    tasks_per_s: float
    answers: list

    def __str__(self):
        own, before, least = private(self.memory), self.available[0], min(self.available)
        return (
            f"{self.workers:7} {self.processes:9} {self.memory['Pss'] / MB:8.1f} {own / MB:8.1f} {own / self.workers / MB:8.2f}"
            f" {self.memory['VmPTE'] / MB:8.1f} {before / MB:9,.0f} {least / MB:9,.0f} {self.all_answered_s:9.2f}"
            f" {self.tasks_per_s:8.1f} {self.major_faults:6} {self.memory['VmSwap']:5}"
        )


HEAD = f"""{'':17}      PSS  private     each   tables      available MB  all have    tasks  major
workers processes       MB       MB       MB       MB    before     least  answered      a s faults  swap"""


def manifest(dir, workers, ops):
    """Ten tasks a worker; then a node for each worker that stays at the gate, so that all are alive and done."""
    with open(dir / "texts.jsonl") as texts:
        md5s = [json.loads(next(texts))["id"] for _ in range(TASKS_EACH * workers)]
    hold = {"worker": "{{ item }}", "gate": str(dir / "gate")}
    nodes = [
        {"id": "query", "foreach": md5s, "artifacts": list(ARTIFACTS), "params": {"md5": "{{ item }}"}, **ops["query"]},
        {"id": "hold", "foreach": list(range(workers)), "needs": ["query"], "params": hold, **ops["hold"]},
    ]
    artifacts = {name: {"path": f"{name}.{suffix}"} for name, suffix in ARTIFACTS.items()}
    header = {"python": {"interpreter": python()}} if ops is PYTHON else {}
    return common.write_manifest(dir / "one_copy.jsonl", nodes, artifacts=artifacts, **header)


def shared(args, dir, workers, ops):
    """The tasks on workers of forkyard."""
    path, store, first, last = manifest(dir, workers, ops), dir / f"store-{ops['query']['op']}-{workers}", {}, 0
    with looking_at_memory() as available, gate(dir / "gate") as here:
        begun = time.perf_counter()
        with common.watch(args.forkyard, path, store, "--workers", str(workers)) as (process, events):
            for event in (event for event in events if event["event"] == "node_finished"):
                common.check(event["outcome"] == "ran", f"{event['node']}: {event}")
                if event["node"] == "query":
                    break
                last = time.perf_counter() - begun
                first.setdefault(event["worker"], last)
            with everyone(here, workers):
                held = look(process.pid)
    common.check(len(first) == workers, f"{len(first)} workers have answered, not {workers}")
    cat = [args.forkyard, "results", "cat", "query", "--store", store]
    answers = json.loads(subprocess.run(cat, cwd=dir, capture_output=True, check=True).stdout)
    return Measured(workers, *held, available, max(first.values()), len(answers) / last, answers)


def naive(dir, workers):
    """The same in processes that each load everything."""
    command = [python(), HERE / "one_copy_numpy.py", "alone", dir, str(workers)]
    with looking_at_memory() as available:
        begun = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **ONE_THREAD}
        ) as process:
            answers = json.loads(process.stdout.readline())
            held = look(process.pid)
            process.communicate()
    ends = [end - begun for _, end, _ in answers]
    return Measured(
        workers, *held, available, max(ends[::TASKS_EACH]), len(ends) / max(ends), [found for _, _, found in answers]
    )


def look(pid):
    """How many processes there are, what they hold, and how often they have waited for the disk."""
    stats = (Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in tree(pid))
    return *tree_memory(pid), sum(int(stat[9]) for stat in stats)


@contextlib.contextmanager
def gate(path):
    """Where nodes wait."""
    with socket.socket(socket.AF_UNIX) as here:
        here.settimeout(PATIENCE_S)
        here.bind(str(path))
        here.listen(max(WORKERS))
        yield here
    path.unlink()


@contextlib.contextmanager
def everyone(gate, count):
    """So many processes at the gate; at the end it opens for good."""
    with gate, contextlib.ExitStack() as waiting:
        for _ in range(count):
            waiting.enter_context(gate.accept()[0])
        yield


@contextlib.contextmanager
def looking_at_memory():
    """A list of what memory was available, first of all and then again and again."""
    seen, over = [available_memory()], threading.Event()

    def again():
        while not over.wait(LOOK_EVERY_S):
            seen.append(available_memory())

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def available_memory():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def check_equal(some, more):
    """Ops of one kind answer a task in the same way, to the last bit, however many workers there are."""
    for task, (one, other) in enumerate(zip(some.answers, more.answers)):
        common.check(one == other, f"task {task}: {one} of {some.workers} workers, {other} of {more.workers}")


def check_alike(some, more):
    """numpy adds in another order than Rust."""
    for task, (one, other) in enumerate(zip(some.answers, more.answers)):
        pairs = list(zip(one["tools"], other["tools"], strict=True))
        alike = all(name == other_name and abs(score - other_score) < SCORE_ERROR
                    for (name, score), (other_name, other_score) in pairs)
        common.check(alike and one["near"] == other["near"], f"task {task}: {one}, and in another way {other}")


def measure(what, run, counts):
    """Runs with so many workers each, by the number of workers."""
    print(f"\n{what}\n{HEAD}")
    runs = {}
    for workers in counts:
        runs[workers] = run(workers)
        print(runs[workers], flush=True)
    for some, more in itertools.pairwise(runs.values()):
        check_equal(some, more)
    return runs


def goals(kind, runs):
    pss = {workers: run.memory["Pss"] for workers, run in runs.items()}
    native = kind == "native"
    if 100 in pss:
        yield f"{kind}, 100 workers: MB, PSS", pss[100] / MB, common.at_most(GOAL_PSS_100 / MB) if native else None
    if 100 in pss and 150 in pss:
        more = (pss[150] - pss[100]) / MB
        yield f"{kind}, 150 workers: MB more than 100", more, common.at_most(GOAL_MORE_150 / MB) if native else None
    yield f"{kind}: bytes in swap, the most", max(run.memory["VmSwap"] for run in runs.values()), common.at_most(0)


def extrapolated(run):
    yield f"naive, {run.workers} processes: MB, PSS", run.memory["Pss"] / MB, None
    for workers in [100, 150]:
        yield f"naive, {workers}, extrapolated: MB, PSS", run.memory["Pss"] / run.workers * workers / MB, None


def main():
    args = common.arguments(
        __doc__,
        example="one_copy",
        native="ops in Rust",
        python="the same as Python nodes with numpy",
        naive=f"{NAIVE_WORKERS} processes that each load everything",
        workers={"type": numbers, "default": WORKERS, "metavar": "LIST", "help": "how many workers"},
    )
    chosen = [kind for kind in ["native", "python", "naive"] if getattr(args, kind)] or ["native", "naive"]
    with common.scratch() as dir:
        subprocess.run([python(), HERE / "one_copy_numpy.py", "files", dir], check=True)
        sizes = {name: (dir / f"{name}.{suffix}").stat().st_size for name, suffix in ARTIFACTS.items()}
        print(f"{sum(sizes.values()) / MB:.1f} MB of files: {', '.join(f'{name} {size:,}' for name, size in sizes.items())}")
        kinds = {}
        for kind, ops in [("native", NATIVE), ("python", PYTHON)]:
            if kind in chosen:
                kinds[kind] = measure(
                    f"{kind}: one copy, {TASKS_EACH} tasks a worker",
                    lambda workers: shared(args, dir, workers, ops),
                    args.workers,
                )
        if "naive" in chosen:
            what = f"naive: a copy in each process, {TASKS_EACH} tasks each"
            kinds["naive"] = measure(what, lambda workers: naive(dir, workers), [NAIVE_WORKERS])
    largest = [runs[max(runs)] for runs in kinds.values()]
    for some, more in itertools.pairwise(largest):
        check_alike(some, more)
    agree = f"; {' and '.join(kinds)} agree" if len(kinds) > 1 else ""
    print(f"\nequal answers whatever the number of workers{agree}")
    rows = [row for kind, runs in kinds.items() if kind != "naive" for row in goals(kind, runs)]
    if "naive" in kinds:
        rows += extrapolated(kinds["naive"][NAIVE_WORKERS])
    common.table(*rows)


def numbers(text):
    return sorted(map(int, text.split(",")))


if __name__ == "__main__":
    main()
