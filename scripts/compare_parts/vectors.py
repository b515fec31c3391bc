"""Rows of a large matrix: nearest rows, exact and approximate, and the memory of many who want it."""

import shutil
import subprocess

from compare_parts import inputs
from compare_parts.rows import Better, Contender, Memory, Part, Row, Said, Wall

COUNT, COLUMNS, SMALL_ROWS = 65_000, 384, 20_000
ONE, BATCH, A_NODE, NUMPY = 400, 2_048, 64, 100
ANN, WORKERS, LARGE_ROWS = 20_000, 10, 170_000


def matrix(site, count):
    path = site.work / "inputs" / f"matrix-{count}.npy"

    def make():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(list(map(str, site.peer("vectors", "make", path, count, COLUMNS))), check=True)

    return path, make


def ours(site, name, path, make, nodes, figure, workers=2, artifact=None):
    """A run of nodes over the matrix in a store that was not there before."""
    manifest, store = site.work / "inputs" / f"{name}.jsonl", site.work / "stores" / name
    command = [site.forkyard, "run", manifest, "--store", store, "--workers", str(workers), "--quiet"]
    contender = Contender("forkyard", command, figure, Part.OURS, "durable; from the command to its exit")

    def once():
        make()
        inputs.manifest(manifest, nodes, artifacts={"m": {"path": str(artifact or path)}})

    contender.once = once
    contender.prepare = lambda: shutil.rmtree(store, ignore_errors=True)
    contender.missing = site.missing("numpy")
    return contender


def node(at, **params):
    return {"id": f"n{at}", "op": "topk", "artifact": "m", "params": {"k": 10, "metric": "dot", **params}}


def peer(site, name, words, figure, note, package):
    return Contender(name, site.peer("vectors", *words), figure, note=note, missing=site.missing(package))


def topk(site):
    path, make = matrix(site, COUNT)
    row = Row("topk", "the 10 nearest of 65,000 x 384 f32 by dot product, a query a node", "queries/s", Better.MORE)
    nodes = [node(at, row=at * COUNT // ONE) for at in range(ONE)]
    row.contenders = [
        ours(site, "topk", path, make, nodes, Wall(of=lambda seconds: ONE / seconds)),
        peer(site, "faiss IndexFlatIP", ["faiss_one", path, ONE], Said("per_s"), "two threads of one process; load apart, nothing kept", "faiss"),
        peer(site, "numpy", ["numpy_one", path, NUMPY], Said("per_s"), f"{NUMPY} queries; BLAS has both cores; load apart, nothing kept", "numpy"),
    ]
    return row


def topk_batch(site):
    path, make = matrix(site, COUNT)
    row = Row("topk-batch", f"the same, {A_NODE} queries a node", "queries/s", Better.MORE)
    step = BATCH // A_NODE
    nodes = [node(at, rows=[at * A_NODE, (at + 1) * A_NODE]) for at in range(step)]
    row.contenders = [
        ours(site, "topk-batch", path, make, nodes, Wall(of=lambda seconds: BATCH / seconds)),
        peer(site, "faiss IndexFlatIP", ["faiss_batch", path, BATCH], Said("per_s"), "all in one call, both cores; load apart, nothing kept", "faiss"),
        peer(site, "numpy", ["numpy_batch", path, BATCH], Said("per_s"), "all in one call, both cores; load apart, nothing kept", "numpy"),
    ]
    return row


def ann(site):
    path, make = matrix(site, SMALL_ROWS)
    index = path.with_suffix(".usearch")

    def build():
        make()
        subprocess.run(list(map(str, site.peer("vectors", "usearch_index", path, index))), check=True)

    row = Row("ann", "the 10 nearest of 20,000 x 384 f32 by a usearch index, a query a node", "queries/s", Better.MORE)
    nodes = [{"id": f"n{at}", "op": "ann", "artifact": "m", "params": {"k": 10, "row": at}} for at in range(ANN)]
    forkyard = ours(site, "ann", path, build, nodes, Wall(of=lambda seconds: ANN / seconds), artifact=index)
    forkyard.missing = forkyard.missing or site.missing("usearch")
    one = peer(site, "usearch", ["usearch_one", path, index, ANN], Said("per_s"), "two threads of one process; load apart, nothing kept", "usearch")
    batch = peer(site, "usearch, one call", ["usearch_batch", path, index, ANN], Said("per_s"), "both cores; load apart, nothing kept", "usearch")
    one.once = build
    batch.once = build
    row.contenders = [forkyard, one, batch]
    return row


def memory(site):
    path, make = matrix(site, LARGE_ROWS)
    size = LARGE_ROWS * COLUMNS * 4 / 1e6
    row = Row("memory", f"{WORKERS} processes that have scanned one matrix of {size:.0f} MB: all together", "MB", Better.LESS)
    nodes = [node(at, rows=[at * 8, (at + 1) * 8]) for at in range(WORKERS)]
    looked = Memory(of=lambda size: size / 1e6)
    row.contenders = [
        ours(site, "memory", path, make, nodes, looked, WORKERS),
        peer(site, "multiprocessing, a copy each", ["memory", path, "copy", WORKERS], looked, "numpy.load", "numpy"),
        peer(site, "multiprocessing, mapped by hand", ["memory", path, "mapped", WORKERS], looked, "numpy.load(mmap_mode)", "numpy"),
        peer(site, "joblib", ["memory_joblib", path, WORKERS], looked, "its own mapping of arguments", "joblib"),
        peer(site, "Ray", ["memory_ray", path, WORKERS], looked, "ray.put; a copy in its object store beside the one that was loaded", "ray"),
    ]
    return row


ROWS = {"topk": topk, "topk-batch": topk_batch, "ann": ann, "memory": memory}
