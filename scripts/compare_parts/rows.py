"""What a row of the table is. Knows no tool and no workload."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Better(Enum):
    """Which way is up."""

    LESS = "less"
    MORE = "more"


class Part(Enum):
    """What somebody is in a row."""

    OURS = "ours"
    PEER = "peer"
    FLOOR = "floor"


def as_it_is(figure):
    return figure


@dataclass
class Figure:
    """What is read from a run, and what it comes to in the row's unit."""

    of: Callable[[float], float] = field(default=as_it_is, kw_only=True)


@dataclass
class Wall(Figure):
    """Seconds from the command to its exit."""


@dataclass
class First(Figure):
    """Seconds from the command to the first line of stdout that has this in it."""

    text: str


@dataclass
class Said(Figure):
    """A field of the JSON object in the last line of stdout."""

    field: str


@dataclass
class Shown(Figure):
    """The number that stands after this (a regular expression) in stdout."""

    after: str


@dataclass
class Memory(Figure):
    """The most bytes (PSS and page tables) that the command and all below it were seen to have."""


@dataclass
class Contender:
    """Somebody who does the work of a row, by a command."""

    name: str
    command: list
    figure: Figure
    part: Part = Part.PEER
    note: str = ""
    """What is not equal: less work and a rate carried on, something that the others do and this does not."""
    prepare: Callable[[], None] = lambda: None
    """Done before each run, outside of the time."""
    once: Callable[[], None] = lambda: None
    """Done before the first run."""
    missing: str = ""
    """Why it cannot be run."""
    cwd: Path | None = None
    times: int = 1
    """How often it is run in a round; the quick ones more than once."""
    samples: list[float] = field(default_factory=list)


@dataclass
class Row:
    """The same work, done by several."""

    name: str
    what: str
    unit: str
    better: Better
    contenders: list[Contender] = field(default_factory=list)

    def ours(self):
        """The samples that all others are set beside."""
        return next((each.samples for each in self.contenders if each.part is Part.OURS and each.samples), [])


def ours_stands(better, ours, theirs):
    """How many times as good ours is."""
    return theirs / ours if better is Better.LESS else ours / theirs
