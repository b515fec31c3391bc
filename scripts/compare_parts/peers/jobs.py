"""joblib: its cache of function calls, its executor (loky), and arrays that its processes share."""

import sys

import joblib
from joblib.externals.loky import get_reusable_executor

import times

CACHE = sys.argv[-1]


def node(at, *needed):
    return at


def rerun(layers, width):
    """Calls of a cached function, in the graph's order; each has the results of what it needs as arguments."""
    cached = joblib.Memory(CACHE, verbose=0).cache(node)
    graph = list(times.needs(layers, width))

    def work():
        results = []
        for at, needs in enumerate(graph):
            results.append(cached(at, *(results[need] for need in needs)))

    times.say(seconds=times.seconds(work))


def submit(count):
    pool = get_reusable_executor(max_workers=2)
    times.say(**times.round_trips(lambda: pool.submit(abs, 0).result(), count))


if __name__ == "__main__":
    if sys.argv[1] == "rerun":
        rerun(int(sys.argv[2]), int(sys.argv[3]))
    else:
        times.run(submit=submit)
