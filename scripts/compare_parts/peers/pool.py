"""Python's own processes, two of them: multiprocessing.Pool, and concurrent.futures under a graphlib graph."""

import graphlib
import multiprocessing
import queue
from concurrent.futures import ProcessPoolExecutor

import times

WORKERS = 2


def nothing(*_):
    return None


def dag(layers, width):
    graph = {at: needs for at, needs in enumerate(times.needs(layers, width))}
    with ProcessPoolExecutor(WORKERS) as pool:
        pool.submit(nothing).result()
        done = queue.SimpleQueue()

        def work():
            order = graphlib.TopologicalSorter(graph)
            order.prepare()
            while order.is_active():
                for node in order.get_ready():
                    pool.submit(nothing, node).add_done_callback(lambda _, node=node: done.put(node))
                order.done(done.get())

        times.say(seconds=times.seconds(work))


def first():
    with multiprocessing.Pool(WORKERS) as pool:
        times.say(first=next(pool.imap_unordered(abs, range(100))))


def one(count):
    with multiprocessing.Pool(WORKERS) as pool:
        list(pool.imap_unordered(abs, range(1000)))
        work = lambda: sum(1 for _ in pool.imap_unordered(abs, range(count), chunksize=1))
        times.say(per_s=count / times.seconds(work))


def batches(count):
    with multiprocessing.Pool(WORKERS) as pool:
        list(pool.imap_unordered(abs, range(1000)))
        times.say(per_s=count / times.seconds(lambda: pool.map(abs, range(count))))


def chain(count):
    with multiprocessing.Pool(WORKERS) as pool:
        pool.apply(abs, [0])

        def work():
            last = 0
            for _ in range(count):
                last = pool.apply(abs, [last])

        times.say(seconds=times.seconds(work))


def submit(count):
    with multiprocessing.Pool(WORKERS) as pool:
        times.say(**times.round_trips(lambda: pool.apply(abs, [0]), count))


if __name__ == "__main__":
    times.run(dag=dag, first=first, one=one, batches=batches, chain=chain, submit=submit)
