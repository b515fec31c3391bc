"""Stores from outside: copying one, damaging one, seeing how far it is folded. Knows their layouts and no
command of forkyard."""

import contextlib
import dataclasses
import os
import shutil
import sqlite3

LAYOUTS = ["hybrid", "sqlite", "filesystem"]
PAGE = 4096  # of the database; any other size only moves the damage
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


# ---- damage ----
#
# Each says what it has damaged, or nothing if the store has nothing of the kind.


@dataclasses.dataclass
class Damage:
    what: str
    # Packed bytes have bits that mean nothing, and so has a database.
    must_be_noticed: bool
    # Nobody can say what was there: results may be missing, and the store may be unusable until it is verified.
    leaves_holes: bool = False
    # `store verify` tells of it, and `store gc` refuses, for as long as the run is there.
    stays: bool = False


def flip_a_bit(store, chance):
    """In one stored value or result."""
    files = [path for name in ("results", "blobs") for path in files_below(store / name)]
    columns = [column for column in COLUMNS if rows(store, column[0])]
    where = chance.choice(columns + [files] * bool(files))
    if where is files:
        path = chance.choice(files)
        replace(path, flipped(before := path.read_bytes(), chance))
        return Damage(str(path), not before.startswith(ZSTD))
    table, name, column = where
    with database(store) as connection:
        row = f"SELECT {name}, {column} FROM {table} ORDER BY {name} LIMIT 1 OFFSET ?"
        key, before = connection.execute(row, [chance.randrange(rows(store, table))]).fetchone()
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {name} = ?", [flipped(before, chance), key])
    return Damage(f"{column} of {table} where {name} is {key}", not before.startswith(ZSTD))


def spoil_a_page(store, chance):
    """Of the database: whatever is in it."""
    path = store / "store.db"
    if not path.exists():
        return None
    before = bytearray(path.read_bytes())
    page = chance.randrange(len(before) // PAGE)
    part = chance.choice([64, 512, PAGE])
    start = page * PAGE + chance.randrange(0, PAGE, part)
    before[start : start + part] = chance.choice([bytes(part), chance.randbytes(part)])
    replace(path, before)
    return Damage(f"{part} bytes of page {page} of the database", False, leaves_holes=True)


def cut_the_database(store, chance):
    path = store / "store.db"
    if not path.exists():
        return None
    before = path.read_bytes()
    length = chance.randrange(len(before) // PAGE) * PAGE + chance.choice([0, 0, 100])
    replace(path, before[:length])
    return Damage(f"the database after {length} of {len(before)} bytes", False, leaves_holes=True)


def spoil_a_file(store, chance):
    """A blob, or a result's file."""
    files = [path for name in ("results", "blobs") for path in files_below(store / name)]
    if not files:
        return None
    path = chance.choice(files)
    is_packed = path.read_bytes().startswith(ZSTD)
    return Damage(f"{path}, {spoil(path, chance)}", not is_packed)


def spoil_a_journal(store, chance):
    journals = [path for name in ("journal", "fields") for path in sorted((store / "runs").glob(f"*/{name}"))]
    path = chance.choice([path for path in journals if path.stat().st_size])
    return Damage(f"{path}, {spoil(path, chance)}", False, leaves_holes=True, stays=True)


DAMAGES = {
    "a flipped bit": flip_a_bit,
    "a spoilt page": spoil_a_page,
    "a cut database": cut_the_database,
    "a spoilt file": spoil_a_file,
    "a spoilt journal": spoil_a_journal,
}


def files_below(directory):
    return sorted(directory.glob("*/*"))


def spoil(path, chance):
    """Says how."""
    before = path.read_bytes()
    start = chance.randrange(len(before))
    length = chance.randint(1, min(4096, len(before) - start))
    garbage = chance.randbytes(length - 1) + bytes([before[start + length - 1] ^ 0x5A])
    name, after = chance.choice([
        ("gone", None),
        ("empty", b""),
        ("cut", before[:start]),
        ("overwritten", before[:start] + garbage + before[start + length :]),
        ("longer", before + garbage),
    ])
    if after is None:
        path.unlink()
    else:
        replace(path, after)
    return f"{name} at {start}"


def replace(path, data):
    """Under another inode: a copy of a store shares files with what it was copied from."""
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


def flipped(before, chance):
    after = bytearray(before)
    after[chance.randrange(len(after))] ^= 1 << chance.randrange(8)
    return bytes(after)
