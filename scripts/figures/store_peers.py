#!/usr/bin/env python3
"""The store beside others of its kind: 100,000 incompressible objects of 1 KB, made durable and read again.

All get the same objects under their SHA-256, in turn, each in a directory of its own; every figure is the median
of three. Ours and cacache check each object against its digest when they read it, the others do not. What does not
sync by itself (plain files, cacache) is synced after each 4,096 objects, which is as many as ours commits at once.
"""

import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import common

OBJECTS, BYTES, SEED, RUNS = 100_000, 1024, 20_251, 3
SQLITE_BATCH = 1_000
OURS, PEERS = ["hybrid", "sqlite", "filesystem"], ["files", "cacache", "sqlite3", "diskcache"]
NAMES = {"files": "plain files", "sqlite3": "Python's sqlite3"}
GOAL_WRITES_PER_S, GOAL_READS_PER_S, GOAL_BEHIND_FILES = 150_000, 200_000, 1.5


def with_diskcache():
    """The diskcache module; starts the script again in the environment that has it where it is missing."""
    try:
        import diskcache
    except ImportError:
        found = subprocess.run([common.ROOT / "scripts" / "python"], stdout=subprocess.PIPE, text=True, check=True)
        python = found.stdout.strip()
        if Path(sys.executable) == Path(python):
            raise
        os.execv(python, [python, *sys.argv])
    return diskcache


def objects_of(path):
    data = path.read_bytes()
    values = [data[at : at + BYTES] for at in range(0, len(data), BYTES)]
    return [(hashlib.sha256(value).digest(), value) for value in values]


def per_second(work):
    start = time.perf_counter()
    work()
    return OBJECTS / (time.perf_counter() - start)


def batches(objects):
    return (objects[at : at + SQLITE_BATCH] for at in range(0, len(objects), SQLITE_BATCH))


def figures(objects, write, read):
    """Durable writes and hot reads a second; everything is read once before, and compared."""
    writes_per_s = per_second(write)
    for key, value in objects:
        common.check(read(key) == value, f"object {key.hex()} comes back as other bytes")
    keys = sorted(key for key, _ in objects)

    def read_all():
        for key in keys:
            read(key)

    return {"writes_per_s": writes_per_s, "reads_per_s": per_second(read_all)}


def with_sqlite3(objects, dir):
    """A table with a rowid and a unique key, WAL, synchronous=FULL, a transaction for each 1,000 objects."""
    with contextlib.closing(sqlite3.connect(dir / "peer.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE objects (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

        def write():
            for batch in batches(objects):
                database.execute("BEGIN")
                database.executemany("INSERT INTO objects VALUES (?, ?)", batch)
                database.execute("COMMIT")

        read = lambda key: database.execute("SELECT value FROM objects WHERE key = ?", [key]).fetchone()[0]
        return figures(objects, write, read)


def with_cache(diskcache, objects, dir):
    """Evicts nothing, synchronous=FULL, a transaction for each 1,000 objects."""
    settings = {"eviction_policy": "none", "cull_limit": 0, "sqlite_synchronous": 2}
    with contextlib.closing(diskcache.Cache(str(dir), **settings)) as cache:

        def write():
            for batch in batches(objects):
                with cache.transact():
                    for key, value in batch:
                        cache.set(key, value)

        return figures(objects, write, cache.get)


def main():
    diskcache = with_diskcache()    # First, because it may start the script again.
    args = common.arguments(__doc__)
    print(f"seed {SEED}")
    measured = {name: [] for name in OURS + PEERS}
    with common.scratch() as dir:
        path = dir / "objects"
        path.write_bytes(random.Random(SEED).randbytes(OBJECTS * BYTES))
        objects = objects_of(path)
        for run in range(RUNS):
            for name, rows in measured.items():
                place = dir / f"{name}-{run}"
                place.mkdir()
                os.sync()           # What the one before has left to write is not to be this one's burden.
                if name == "sqlite3":
                    row = with_sqlite3(objects, place)
                elif name == "diskcache":
                    row = with_cache(diskcache, objects, place)
                else:
                    row = common.bench("store_objects", name, path, BYTES, place)
                shutil.rmtree(place)
                rows.append(row)
                print(f"{name}, run {run + 1}: " + ", ".join(f"{what} {value:,.4g}" for what, value in row.items()), flush=True)
    common.table(*table_rows({name: medians(rows) for name, rows in measured.items()}))


def medians(rows):
    return {what: median(row[what] for row in rows) for what in rows[0]}


def table_rows(of):
    """Ours with their goals, all others, and how ours stand to them."""
    for what, goal in [("writes", GOAL_WRITES_PER_S), ("reads", GOAL_READS_PER_S)]:
        for name in OURS:
            own = None if name == "filesystem" else common.at_least(goal)
            yield f"{name}, {'durable' if what == 'writes' else 'verified'} {what}/s", of[name][f"{what}_per_s"], own
        for name in PEERS:
            yield f"{NAMES.get(name, name)}, {what}/s", of[name][f"{what}_per_s"], None
        for name in OURS:
            for peer in PEERS:
                ahead = of[name][f"{what}_per_s"] / of[peer][f"{what}_per_s"]
                own = common.at_least(1 / GOAL_BEHIND_FILES) if (name, peer) == ("filesystem", "files") else common.at_least(1)
                if peer == "files" and what == "reads" and name != "filesystem":
                    own = None
                yield f"{name} of {NAMES.get(peer, peer)}, {what}", ahead, own
    for name in OURS:
        yield f"{name}, s to open it for all keys", of[name]["open_s"], None


if __name__ == "__main__":
    main()
