"""What undisturbed commands do: the reference for all that are disturbed."""

import functools
import shutil
import time

from . import manifests, stores
from .commands import DEADLINE_S, Forkyard, expect, same
from .processes import kill

NAMES = ["first", "bulk", "second"]


class Peace:
    """One layout with one preset. Everything is made when it is asked for."""

    def __init__(self, binary, space, layout, preset, nodes, references):
        self.binary, self.space, self.layout, self.preset = binary, space, layout, preset
        self.nodes = nodes
        # What the manifests of this preset return in another layout.
        self.references = references

    def manifest(self, name):
        return f"{name}-{self.layout}-{self.preset}.jsonl"

    def directory(self, name):
        """A directory in which commands may begin."""
        forkyard = Forkyard(self.binary, self.space / name)
        for path in [*manifests.inputs(self.space), *(self.space / self.manifest(name) for name in [*NAMES, "hold"])]:
            shutil.copy(path, forkyard.directory)
        return forkyard

    @functools.cached_property
    def library(self):
        return str(self.space / "fault.so")

    def take_reference(self, name, found):
        same(found, self.references.setdefault(name, found), f"{name} in layout {self.layout}")

    @functools.cached_property
    def first(self):
        """A run of the first manifest: its results, how many lines it prints, how many calls it makes on its store."""
        forkyard = self.directory(f"peace-first-{self.layout}-{self.preset}")
        began = time.monotonic()
        running = forkyard.start_run(self.manifest("first"), environment=self.faults(forkyard, "count"))
        running.wait_for_lines(1)
        start = time.monotonic() - began
        running.end((0,))
        reference, _ = forkyard.results()
        self.take_reference("first", reference)
        forkyard.expect_nothing_left("in peace")
        first = First(reference, len(running.lines), start, self.counted(forkyard))
        shutil.rmtree(forkyard.directory)
        return first

    def faults(self, forkyard, kind, **words):
        """The environment in which a command meets faults."""
        settings = {f"FAULT_{name.upper()}": str(value) for name, value in words.items()}
        struck = forkyard.directory / "struck"
        return {"LD_PRELOAD": self.library, "FAULT_STORE": str(forkyard.store), "FAULT_STRUCK": str(struck),
                "FAULT_ALL": "1", "FAULT_KIND": kind, **settings}

    @staticmethod
    def counted(forkyard):
        """Writes, other changes, reads."""
        counts = (forkyard.directory / "struck").read_text().split()[:3]
        return [int(count) for count in counts]

    @functools.cached_property
    def many(self):
        """A store of several runs to copy, and how long (in s) a command of each kind takes on it, as the span of
        moments at which to strike it."""
        forkyard, other = (self.directory(f"peace-{name}-{self.layout}-{self.preset}") for name in ("many", "copy"))
        runs, spans, calls = {}, {}, {}
        for name in NAMES:
            forkyard.run(self.manifest(name))
            found, _ = forkyard.results()
            self.take_reference(name, found)
            runs[max(forkyard.runs())] = name
            # Of the results that are copied some are folded and some are not.
            if name == "first" and self.layout != "filesystem":
                self.hold(forkyard)
        words = {"verify": ["store", "verify"], "gc": ["store", "gc", "--keep-runs", "1"]}
        for kind, words in words.items():
            stores.copy(forkyard.store, other.store)
            began = time.monotonic()
            other.do(*words, environment=self.faults(other, "count"))
            spans[kind], calls[kind] = (0, time.monotonic() - began), self.counted(other)
            shutil.rmtree(other.store)
        if self.layout != "filesystem":
            stores.copy(forkyard.store, other.store)
            spans["fold"] = self.hold(other)
        shutil.rmtree(other.directory)
        return Many(forkyard, runs, spans, calls)

    def hold(self, forkyard):
        """Lets a run fold everything; from when to when that goes on."""
        began, before = time.monotonic(), stores.rows(forkyard.store, "log")
        run, first = forkyard.start_run(self.manifest("hold")), None
        while left := stores.rows(forkyard.store, "log"):
            if first is None and left < before:
                first = time.monotonic()
            expect(run.is_alive() and time.monotonic() - began < DEADLINE_S, "the store is not folded")
            time.sleep(0.002)  # who folds tells nobody
        end = time.monotonic()
        kill(run.pid)
        run.end((-9,))
        forkyard.expect_nothing_left("after a fold", files=False)
        # What is seen first is the end of the first of its transactions, and those may be the only one.
        return max(0, (first or end) - began - 0.05), end - began


class First:
    def __init__(self, reference, lines, start, calls):
        self.reference, self.lines, self.start, self.calls = reference, lines, start, calls


class Many:
    def __init__(self, forkyard, runs, spans, calls):
        self.forkyard, self.runs, self.spans, self.calls = forkyard, runs, spans, calls
