"""Asks DuckDB, and prints each row of the answer as a JSON array: query.py SQL. Bytes come as hex."""

import json
import sys

import duckdb


def plain(value):
    return value.hex() if isinstance(value, bytes) else value


for row in duckdb.sql(sys.argv[1]).fetchall():
    print(json.dumps([plain(value) for value in row]))
