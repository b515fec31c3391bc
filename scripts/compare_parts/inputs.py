"""The work that is compared, as files: graphs in our words and in those of ninja and make. Made once, kept
until these programs change."""

import json
import os
from pathlib import Path

BACK = (0, 1, 37)                   # A node needs these three of the layer before, counted from its own place.


def layered(layers, width):
    """The needs of each node of a graph of layers, in order."""
    for layer in range(layers):
        for at in range(width):
            before = (layer - 1) * width
            yield [before + (at + back) % width for back in BACK] if layer else []


def chain(length):
    """The needs of each node of a chain."""
    return ([at - 1] if at else [] for at in range(length))


def flat(count):
    """The needs of nodes that need nothing."""
    return ([] for _ in range(count))


def is_new(path):
    """Whether a file is there that these programs, as they are now, have made."""
    newest = max(program.stat().st_mtime for program in Path(__file__).parent.rglob("*.py"))
    return path.exists() and path.stat().st_mtime > newest


def once(path, write):
    """A file that is made if it is not there yet. It gets its name last, so that half a file is never taken for it."""
    if not is_new(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with open(part, "w") as file:
            write(file)
        os.replace(part, path)
    return path


def manifest(path, nodes, **header):
    """A manifest for machines."""
    def write(file):
        for line in [{"forkyard": 1, **header}, *nodes]:
            file.write(json.dumps(line) + "\n")

    return once(path, write)


def noops(path, needs):
    """A manifest of nodes that do nothing."""
    def write(file):
        for at, of in enumerate(needs):
            listed = ",".join(f'"n{each}"' for each in of)
            file.write(f'{{"id":"n{at}","op":"noop","needs":[{listed}]}}\n')

    return once(path, write)


def ninja(path, needs, rule):
    """The same graph for ninja. `rule` is a command, or "" for names that stand for nothing (phony)."""
    def write(file):
        name = "phony"
        if rule:
            file.write(f"rule r\n  command = {rule}\n")
            name = "r"
        for at, of in enumerate(needs):
            file.write(f"build n{at}: {name} {' '.join(f'n{each}' for each in of)}\n")

    return once(path, write)


def make(path, needs):
    """The same graph for make; files are there, one later than the other, so that there is nothing to do."""
    def write(file):
        needs_of = list(needs)
        file.write(f"all: {' '.join(f'n{at}' for at in range(len(needs_of)))}\n")
        for at, of in enumerate(needs_of):
            file.write(f"n{at}: {' '.join(f'n{each}' for each in of)}\n\ttouch $@\n")

    return once(path, write)


def files_in_order(dir, count, layer):
    """Empty files n0, n1, ...: those of a later layer are a second newer."""
    dir = Path(dir)
    dir.mkdir(parents=True, exist_ok=True)
    for at in range(count):
        (dir / f"n{at}").touch()
        os.utime(dir / f"n{at}", (1_700_000_000 + at // layer,) * 2)
