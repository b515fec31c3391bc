"""Counts tokens, about. A module as harnesses have them: it takes a moment and some 20 MB to import.

`[python] preload = ["heavy"]` has it imported once, before the first worker is forked; they all share its pages.
"""

import os
import re
import sys
import time
import zlib
from array import array

ENTRIES = 2_500_000  # of 8 bytes each


def _table():
    """How many tokens a word makes, by its hash."""
    start = time.monotonic()
    table = array("q", (1 + (n * n + n // 7) % 3 for n in range(ENTRIES)))
    took, size = time.monotonic() - start, len(table) * table.itemsize / 1e6
    print(f"heavy.py: made {size:.0f} MB in {took:.2f} s, in process {os.getpid()}", file=sys.stderr)
    return table


_TOKENS = _table()


def count_tokens(text):
    return sum(_TOKENS[zlib.crc32(word.encode()) % ENTRIES] for word in re.findall(r"\w+|[^\w\s]", text))
