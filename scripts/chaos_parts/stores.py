"""Stores from outside: copying one, damaging one, seeing how far it is folded. Knows their layouts and no
command of forkyard."""

import contextlib
import os
import shutil
import sqlite3

LAYOUTS = ["hybrid", "sqlite", "filesystem"]
ZSTD = b"\x28\xb5\x2f\xfd"  # what packed bytes start with
COLUMNS = [("blobs", "id", "bytes"), ("log", "seq", "packed"), ("results", "key", "record")]


def copy(source, target):
    """A copy that shares the files which are never written again."""
    fixed = tuple(f"{source / name}{os.sep}" for name in ("results", "blobs"))
    link = lambda a, b: os.link(a, b) if a.startswith(fixed) else shutil.copy2(a, b)
    shutil.copytree(source, target, copy_function=link)


@contextlib.contextmanager
def database(store):
    with contextlib.closing(sqlite3.connect(store / "store.db", timeout=10)) as connection, connection:
        yield connection


def rows(store, table):
    """How many rows a table has; none where there is no database. The log's are the results not folded yet."""
    if not (store / "store.db").exists():
        return 0
    with database(store) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def flip_a_bit(store, chance):
    """Damages one stored value or result; says what, and whether the bit is one of packed bytes: those have bits
    that mean nothing."""
    files = [path for name in ("results", "blobs") for path in sorted((store / name).glob("*/*"))]
    columns = [column for column in COLUMNS if rows(store, column[0])]
    where = chance.choice(columns + [files] * bool(files))
    if where is files:
        path = chance.choice(files)
        path.with_suffix(".new").write_bytes(flipped(before := path.read_bytes(), chance))
        path.with_suffix(".new").replace(path)
        return str(path), before.startswith(ZSTD)
    table, name, column = where
    with database(store) as connection:
        row = f"SELECT {name}, {column} FROM {table} ORDER BY {name} LIMIT 1 OFFSET ?"
        key, before = connection.execute(row, [chance.randrange(rows(store, table))]).fetchone()
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {name} = ?", [flipped(before, chance), key])
    return f"{column} of {table} where {name} is {key}", before.startswith(ZSTD)


def flipped(before, chance):
    after = bytearray(before)
    after[chance.randrange(len(after))] ^= 1 << chance.randrange(8)
    return bytes(after)
