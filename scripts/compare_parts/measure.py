"""Runs one contender once and reads its figure. Knows nothing of rows."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from compare_parts.environment import surroundings
from compare_parts.rows import First, Memory, Said, Shown, Wall

sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))
from tree_memory import tree_memory     # noqa: E402

LIMIT_S = 120


class Failed(Exception):
    """A command that did not do its work."""


def sample(contender, heard):
    """Runs a contender once. `heard` is what commands have said in this round: one that says several figures is run
    once for all of them."""
    command = tuple(str(word) for word in contender.command)
    figure = contender.figure
    if not (isinstance(figure, Said | Shown) and command in heard):
        contender.prepare()
        os.sync()                   # What the one before has left to write is not to be this one's burden.
    if isinstance(figure, Memory):
        return figure.of(with_memory(command, contender.cwd))
    if isinstance(figure, First):
        return figure.of(with_first(command, contender.cwd, figure.text))
    if isinstance(figure, Wall):
        start = time.perf_counter()
        finish(start_it(command, contender.cwd), command)
        return figure.of(time.perf_counter() - start)
    if command not in heard:
        heard[command] = finish(start_it(command, contender.cwd), command)
    if isinstance(figure, Shown):
        found = re.search(rf"(?:{figure.after})\s*([\d.]+)", heard[command])
        if not found:
            raise Failed(f"it does not say {figure.after}")
        return figure.of(float(found.group(1)))
    try:
        return figure.of(json.loads(heard[command].splitlines()[-1])[figure.field])
    except (ValueError, IndexError, KeyError) as error:
        raise Failed(f"its last line is not an object with {figure.field}: {error}") from error


def start_it(command, cwd):
    try:
        return subprocess.Popen(
            command, cwd=cwd, env=surroundings(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
    except OSError as error:
        raise Failed(str(error)) from error


def finish(process, command):
    with process:
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise Failed(f"not done after {LIMIT_S} s") from None
    if process.returncode != 0:
        said = (stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise Failed(f"{Path(command[0]).name} ends with {process.returncode}: {said[:200]}")
    return stdout


def with_first(command, cwd, text):
    start = time.perf_counter()
    process = start_it(command, cwd)
    line = next((line for line in process.stdout if text in line), None)
    seconds = time.perf_counter() - start
    finish(process, command)
    if line is None:
        raise Failed(f"it never says {text}")
    return seconds


def with_memory(command, cwd):
    process = start_it(command, cwd)
    most, end = 0, time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < end:
        # Nobody tells when a process takes memory: only looking helps.
        _, memory = tree_memory(process.pid)
        most = max(most, memory["Pss"] + memory["VmPTE"])
        time.sleep(0.02)
    finish(process, command)
    return most
