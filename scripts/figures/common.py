"""What every figure needs: places, a run of the command, its events, a floor, a table.

Knows nothing of any figure. A wrong answer ends the script with exit code 1; a slow one never does.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
WORK = ROOT / "target" / "figures"


def arguments(what, example=None, **flags):
    """The command line: `--forkyard PATH`, which may be an example with ops of its own, and the given flags, which have a
    meaning or the words of `add_argument`; prints what was started with which versions."""
    parser = argparse.ArgumentParser(description=what)
    program, build = ("forkyard", "") if example is None else (f"examples/{example}", f" --example {example}")
    parser.add_argument("--forkyard", type=Path, default=ROOT / "target" / "release" / program, metavar="PATH")
    for name, meaning in flags.items():
        words = meaning if isinstance(meaning, dict) else {"action": "store_true", "help": meaning}
        parser.add_argument(f"--{name}", **words)
    args = parser.parse_args()
    if not args.forkyard.is_file():
        parser.error(f"{args.forkyard} is not there: `cargo build --release{build}` first, or name it with --forkyard")
    args.forkyard = args.forkyard.resolve()
    version = subprocess.run([args.forkyard, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"$ {' '.join(sys.argv)}")
    print(f"{version}, Python {platform.python_version()}, {platform.release()}, {os.cpu_count()} CPUs")
    return args


def data(name):
    """A file of the shared data. Without it there is nothing to measure, which is no fault."""
    path = DATA / name
    if not path.exists():
        print(f"skipped: {path} is not there")
        sys.exit(0)
    return path


@contextlib.contextmanager
def scratch():
    """A directory beside the build, not in /tmp, which may be memory: stores and matrices belong on a disk."""
    WORK.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="run-", dir=WORK))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def check(right, wrong):
    """Ends the script when the answer is not right."""
    if not right:
        sys.exit(f"wrong: {wrong}")


@dataclass
class Run:
    """One finished `forkyard run`: its last event, and the time from the command to its exit."""

    finished: dict
    wall_s: float


def run(forkyard, manifest, store, *options):
    """Runs a manifest that must succeed. Events of single nodes are left out, for they cost time."""
    command = [forkyard, "run", manifest, "--store", store, "--json", "--events", "none", *options]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall_s = time.perf_counter() - start
    check(done.returncode == 0, f"exit code {done.returncode}: {done.stderr.strip()}")
    return Run(json.loads(done.stdout.splitlines()[-1]), wall_s)


@contextlib.contextmanager
def watch(forkyard, manifest, store, *options):
    """A run that goes on: gives the process and its events as they come; at the end it must have succeeded."""
    command = [forkyard, "run", manifest, "--store", store, "--json", "--events", "all", "--quiet", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        yield process, map(json.loads, process.stdout)
        process.stdout.read()
    check(process.returncode == 0, f"exit code {process.returncode}")


def write_manifest(path, nodes, **header):
    """A manifest for machines: a header line and a line a node."""
    with open(path, "w") as file:
        for line in [{"forkyard": 1, **header}, *nodes]:
            file.write(json.dumps(line) + "\n")
    return path


def bench(name, *args):
    """What `cargo bench --bench NAME -- ARGS` says."""
    command = ["cargo", "bench", "--quiet", "--bench", name, "--", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def floor(*args):
    """What the bare loop of `benches/floors.rs` says, {} where it cannot be run."""
    try:
        return bench("floors", *args)
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
        print(f"no floor: {error}", file=sys.stderr)
        return {}


def at_least(limit):
    """A goal for `table`."""
    return (">=", limit)


def at_most(limit):
    """A goal for `table`."""
    return ("<=", limit)


def table(*rows):
    """Prints rows of (what, measured, goal); a goal is `at_least` or `at_most` a number, or None."""
    def number(value):
        return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:,.4g}"

    width = max(len(what) for what, _, _ in rows)
    print(f"{'':<{width}}{'measured':>12}{'goal':>12}")
    for what, measured, goal in rows:
        line = f"{what:<{width}}{number(measured):>12}"
        if goal and measured is not None:
            sign, limit = goal
            met = measured >= limit if sign == ">=" else measured <= limit
            line += f"{sign + ' ' + number(limit):>12}  {'met' if met else 'missed'}"
        print(line)


def ratio(measured, bare):
    """How a figure stands to that of a bare loop, None where there is none."""
    return measured / bare if bare else None
