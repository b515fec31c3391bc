"""Prints the exported results, best first. Any reader of Parquet will do; this one is DuckDB."""

import sys

import duckdb

QUERY = """
    SELECT value->>'$.way', value->>'$.metric', (value->>'$.dims')::INT, (value->>'$.precision')::DOUBLE AS precision
    FROM read_parquet(?) WHERE node LIKE 'by_%[%' ORDER BY precision DESC, node
"""

print("way      metric  dims  precision")
for way, metric, dims, precision in duckdb.execute(QUERY, [sys.argv[1]]).fetchall():
    print(f"{way:<8} {metric:<6} {dims:>5}  {precision:.3f}")
