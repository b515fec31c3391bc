"""Exact and approximate nearest rows of a matrix, with faiss, numpy and usearch; and processes that each want the matrix."""

import multiprocessing
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

import times

K, THREADS = 10, 2


def make(path, rows, columns, seed=20_251):
    """A matrix of random numbers between -1 and 1, kept."""
    if not Path(path).exists():
        matrix = numpy.random.default_rng(seed).random((rows, columns), dtype=numpy.float32) * 2 - 1
        numpy.save(Path(path).with_suffix(".part.npy"), matrix)
        Path(path).with_suffix(".part.npy").rename(path)


def queries_of(matrix, count):
    return matrix[[at * len(matrix) // count for at in range(count)]]


def by_threads(search, queries, start=None):
    """One query after the other, on all cores."""
    with ThreadPoolExecutor(THREADS, initializer=start) as pool:
        return times.seconds(lambda: list(pool.map(search, queries)))


def faiss_one(path, count):
    import faiss

    matrix = numpy.load(path)
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    search = lambda query: index.search(query[None], K)
    # Each thread has a number of its own.
    alone = lambda: faiss.omp_set_num_threads(1)
    times.say(per_s=count / by_threads(search, queries_of(matrix, count), alone))


def faiss_batch(path, count):
    import faiss

    matrix = numpy.load(path)
    index = faiss.IndexFlatIP(matrix.shape[1])
    index.add(matrix)
    faiss.omp_set_num_threads(THREADS)
    queries = queries_of(matrix, count)
    times.say(per_s=count / times.seconds(lambda: index.search(queries, K)))


def best(scores):
    found = numpy.argpartition(scores, -K)[-K:]
    return found[numpy.argsort(scores[found])[::-1]]


def numpy_one(path, count):
    matrix = numpy.load(path)
    times.say(per_s=count / times.seconds(lambda: [best(matrix @ query) for query in queries_of(matrix, count)]))


def numpy_batch(path, count):
    matrix = numpy.load(path)

    def work():
        for scores in queries_of(matrix, count) @ matrix.T:
            best(scores)

    times.say(per_s=count / times.seconds(work))


def usearch_index(path, index_path):
    from usearch.index import Index

    if not Path(index_path).exists():
        matrix = numpy.load(path)
        index = Index(ndim=matrix.shape[1], metric="ip", dtype="f32")
        index.add(numpy.arange(len(matrix)), matrix, threads=THREADS)
        index.save(index_path)


def usearch_one(path, index_path, count):
    from usearch.index import Index

    index = Index.restore(index_path, view=True)
    queries = queries_of(numpy.load(path, mmap_mode="r"), count)
    index.search(queries[0], K)
    times.say(per_s=count / by_threads(lambda query: index.search(query, K), queries))


def usearch_batch(path, index_path, count):
    from usearch.index import Index

    index = Index.restore(index_path, view=True)
    queries = queries_of(numpy.load(path, mmap_mode="r"), count)
    index.search(queries[0], K)
    times.say(per_s=count / times.seconds(lambda: index.search(queries, K, threads=THREADS)))


def touch(path, mode, barrier):
    """A process that has the matrix and scans it, until all have it."""
    matrix = numpy.load(path, mmap_mode=mode)
    best(matrix @ numpy.asarray(matrix[0]))
    barrier.wait()
    time.sleep(0.3)                 # To be looked at: nobody is told of memory.


def memory(path, mode, processes):
    """Processes that load the matrix each for itself (`copy`), or map it by hand (`mapped`)."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    how = {"copy": None, "mapped": "r"}[mode]
    started = [context.Process(target=touch, args=(path, how, barrier)) for _ in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()


def memory_ray(path, processes):
    """The matrix in Ray's object store, for as many workers."""
    import ray

    ray.init(num_cpus=processes, include_dashboard=False, logging_level="ERROR", log_to_driver=False, _node_ip_address="127.0.0.1")

    @ray.remote
    def scan(matrix):
        best(matrix @ matrix[0])
        time.sleep(1.0)

    shared = ray.put(numpy.load(path))
    ray.get([scan.remote(shared) for _ in range(processes)])


def memory_joblib(path, processes):
    """The matrix as an argument that joblib puts into a file, which its processes map."""
    import joblib

    joblib.Parallel(n_jobs=processes)(joblib.delayed(held)(numpy.load(path, mmap_mode="r")) for _ in range(processes))


def held(matrix):
    best(matrix @ numpy.asarray(matrix[0]))
    time.sleep(1.0)


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    globals()[name](*(int(word) if word.isdigit() else word for word in words))
