"""Figures of the programs in `benches/`: floors, and what a Rust program sees that has the pool in it."""

from compare_parts.rows import Contender


def by_bench(site, name, bench, words, figure, part, note=""):
    """What a bench says."""
    program = site.bench(bench)
    missing = "" if program else f"not built: cargo bench --no-run --bench {bench}"
    note = f"{note}; benches/{bench}.rs" if note else f"benches/{bench}.rs"
    return Contender(name, [program, *words], figure, part, note, missing=missing)
