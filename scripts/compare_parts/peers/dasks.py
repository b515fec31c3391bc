"""Dask's scheduler with two processes of one thread. Its start is not in the figures, but in that of the first result."""

from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

import times


def nothing(*_):
    return None


@contextmanager
def client():
    dask.config.set({"distributed.admin.tick.limit": "1h", "distributed.worker.profile.enabled": False})
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1")
    with cluster, Client(cluster) as connected:
        yield connected


def graph_seconds(connected, graph, wanted):
    connected.gather(connected.map(nothing, range(100), pure=False))
    return times.seconds(lambda: connected.get(graph, wanted, sync=True))


def dag(layers, width):
    graph = {f"n{at}": (nothing, *(f"n{need}" for need in needs)) for at, needs in enumerate(times.needs(layers, width))}
    last = [f"n{(layers - 1) * width + at}" for at in range(width)]
    with client() as connected:
        times.say(seconds=graph_seconds(connected, graph, last))


def chain(count):
    graph = {f"n{at}": (nothing, f"n{at - 1}") if at else (nothing,) for at in range(count)}
    with client() as connected:
        times.say(seconds=graph_seconds(connected, graph, [f"n{count - 1}"]))


def first():
    with client() as connected:
        times.say(first=connected.submit(nothing).result())


def one(count):
    with client() as connected:
        connected.gather(connected.map(nothing, range(100), pure=False))
        work = lambda: connected.gather(connected.map(nothing, range(count), pure=False))
        times.say(per_s=count / times.seconds(work))


def submit(count):
    with client() as connected:
        times.say(**times.round_trips(lambda: connected.submit(nothing, pure=False).result(), count))


if __name__ == "__main__":
    times.run(dag=dag, chain=chain, first=first, one=one, submit=submit)
