#!/usr/bin/env python3
"""Vector search beside what others do in the same run: a sum of the same bytes, numpy's matrix product with one BLAS
thread, usearch's own binding on an index of 65,000 real embeddings."""

import os
import sys

# One thread each, and the kernel that the library itself would choose; before numpy is imported.
os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
os.environ.pop("OPENBLAS_CORETYPE", None)

import subprocess
import time
from pathlib import Path

import common

DIMENSIONS, VECTORS, K, MATRIX_BYTES, ROUNDS = 384, 64, 10, 250 << 20, 7
QUERIES, EXPANSION = 500, 64


def with_packages():
    """numpy, threadpoolctl and usearch; starts the script again in an environment of its own where one is missing."""
    try:
        import numpy, threadpoolctl, usearch.index
    except ImportError:
        venv = common.WORK / ".venv-search"
        python = venv / "bin" / "python"
        if Path(sys.prefix) == venv:
            raise
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "threadpoolctl", "usearch"], check=True)
        os.execv(python, [python, *sys.argv])
    return numpy, threadpoolctl, usearch.index


def seconds(what, rounds):
    """The least of several times: others use the machine too."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return min(times)


def scans(numpy, threadpoolctl, dir):
    """One vector and a block of them, in f32 and f16, beside the machine and beside numpy."""
    chance = numpy.random.default_rng(7)
    matrix = chance.standard_normal((MATRIX_BYTES // 4 // DIMENSIONS, DIMENSIONS), dtype=numpy.float32)
    numpy.save(dir / "f32.npy", matrix)
    numpy.save(dir / "f16.npy", matrix.astype(numpy.float16))
    single = common.bench("search", "scan", dir / "f32.npy", dir / "f16.npy")
    vectors = matrix[:VECTORS].copy()
    # In turns, so that a busy minute strikes both.
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(common.bench("search", "block", dir / "f32.npy", VECTORS)["vectors_per_s"])
        theirs.append(VECTORS / seconds(lambda: vectors @ matrix.T, 3))
    kernel = {pool["internal_api"]: pool.get("architecture") for pool in threadpoolctl.threadpool_info()}
    print(f"numpy {numpy.__version__}, BLAS {kernel}, {len(matrix)} x {DIMENSIONS}")
    common.table(
        ("GB/s of f32, one vector", single["f32"] / 1e9, None),
        ("GB/s of f16, one vector", single["f16"] / 1e9, None),
        ("GB/s of a sum", single["sum"] / 1e9, None),
        ("f32 of the sum", single["f32_of_sum"], common.at_least(0.9)),
        ("rows/s, f16 to f32", single["f16_to_f32_rows"], common.at_least(1.5)),
        (f"vectors/s, {VECTORS} at once", max(ours), None),
        ("vectors/s of numpy's product", max(theirs), None),
        ("of numpy's product", max(ours) / max(theirs), common.at_least(1)),
    )


def graph(numpy, index_module, dir):
    """A walk through an index of real embeddings, beside the library's own."""
    vectors = numpy.load(common.data("wordnet/embeddings.f16.npy"))
    index = index_module.Index(ndim=vectors.shape[1], metric="cos", dtype="f16", expansion_search=EXPANSION)
    index.add(numpy.arange(len(vectors), dtype=numpy.uint64), vectors)
    index.save(str(dir / "wordnet.usearch"))
    view = index_module.Index.restore(str(dir / "wordnet.usearch"), view=True)
    view.expansion_search = EXPANSION
    queries = vectors[:: len(vectors) // QUERIES][:QUERIES].astype(numpy.float32)
    numpy.save(dir / "queries.npy", queries)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        found = common.bench("search", "walk", dir / "wordnet.usearch", dir / "queries.npy", K, EXPANSION)
        ours.append(found["us"])
        theirs.append(1e6 * seconds(lambda: [view.search(query, K, threads=1) for query in queries], 1) / QUERIES)
    exact = queries @ vectors.astype(numpy.float32).T
    best = numpy.argsort(-exact, axis=1, kind="stable")[:, :K]

    def recall(lists):
        return sum(len(set(map(int, a)) & set(map(int, b))) for a, b in zip(lists, best)) / best.size

    library = [view.search(query, K, threads=1).keys for query in queries]
    common.check(abs(recall(found["keys"]) - recall(library)) < 0.002, "the recall differs from the library's")
    common.table(
        ("us a query", min(ours), None),
        ("us a query, usearch", min(theirs), None),
        ("of usearch's time", min(ours) / min(theirs), common.at_most(1.1)),
        ("recall", recall(found["keys"]), None),
        ("recall, usearch", recall(library), None),
    )


def main():
    numpy, threadpoolctl, index_module = with_packages()    # First, because it may start the script again.
    common.arguments(__doc__)
    with common.scratch() as dir:
        scans(numpy, threadpoolctl, dir)
        graph(numpy, index_module, dir)


if __name__ == "__main__":
    main()
