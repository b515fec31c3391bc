"""Rows of single nodes: to the first result, from submission to result, and how many a second."""

import shutil

from compare_parts import inputs
from compare_parts.benches import by_bench
from compare_parts.rows import Better, Contender, First, Part, Row, Said, Shown, Wall

FLAT, ROUND_TRIPS = 1_000_000, 10_000
RAY_TRIPS, DASK_TRIPS = 1_000, 200
POOL_ONE, POOL_BATCHES, RAY_ONE, DASK_ONE = 100_000, 10_000_000, 5_000, 1_000


def first(site):
    row = Row("first", "from the command to the first result of 100 no-ops", "ms", Better.LESS)
    manifest, store = site.work / "inputs" / "first.jsonl", site.work / "stores" / "first"
    command = [site.forkyard, "run", manifest, "--store", store, "--workers", "2", "--json", "--events", "all", "--quiet"]
    forkyard = Contender("forkyard", command, First('"node_finished"', of=millis), Part.OURS, "a new store", times=5)
    forkyard.once = lambda: inputs.noops(manifest, inputs.flat(100))
    forkyard.prepare = lambda: shutil.rmtree(store, ignore_errors=True)
    dir = site.work / "ninja" / "first"
    ninja = Contender("ninja", [site.bin / "ninja", "-j2", "-C", dir], First("[1/100]", of=millis), note="a process a node", times=5, missing=site.missing("ninja"))
    ninja.once = lambda: inputs.ninja(dir / "build.ninja", inputs.flat(100), "/bin/true")

    def program(name, module, package, **more):
        return Contender(name, site.peer(module, "first"), First('"first"', of=millis), missing=site.missing(package) if package else "", **more)

    row.contenders = [
        forkyard,
        ninja,
        program("multiprocessing.Pool", "pool", "", times=5),
        program("Dask", "dasks", "dask"),
        program("Ray", "rays", "ray"),
    ]
    return row


def millis(seconds):
    return 1e3 * seconds


def submit(site):
    return trips(site, "submit", "p50", "half of all")


def submit_p99(site):
    return trips(site, "submit-p99", "p99", "99 of 100")


def shown(line, quantile):
    """After the name of a line, in which other quantiles may stand before this one."""
    return Shown(f"{line}.*{quantile}")


def trips(site, name, quantile, how):
    row = Row(name, f"from a program's submission to its result, one after the other: {how}", "us", Better.LESS)

    def program(name, module, count, package):
        missing = site.missing(package) if package else ""
        return Contender(name, site.peer(module, "submit", count), Said(f"{quantile}_us"), missing=missing)

    row.contenders = [
        by_bench(site, "forkyard", "pool", ["awake"], shown("submit to result, awake", quantile), Part.OURS, "in memory"),
        by_bench(site, "a bare pipe, there and back", "pool", ["awake"], shown("a bare pipe", quantile), Part.FLOOR, "both asleep"),
        program("multiprocessing.Pool", "pool", ROUND_TRIPS, ""),
        program("loky", "jobs", ROUND_TRIPS, "joblib"),
        program("Ray", "rays", RAY_TRIPS, "ray"),
        program("Dask", "dasks", DASK_TRIPS, "dask"),
    ]
    return row


def submit_idle(site):
    row = Row("submit-idle", "the same after a second of idleness: half of all", "us", Better.LESS)
    row.contenders = [
        by_bench(site, "forkyard", "pool", ["idle"], shown("submit to result, after a second of idleness", "p50"), Part.OURS, "in memory"),
        by_bench(site, "a bare pipe, there and back", "pool", ["idle"], shown("a bare pipe", "p50"), Part.FLOOR, "both asleep"),
    ]
    return row


def one(site):
    row = Row("independent-one", "no-ops that need nothing, each sent by itself", "nodes/s", Better.MORE)

    def program(name, module, count, package):
        missing = site.missing(package) if package else ""
        return Contender(name, site.peer(module, "one", count), Said("per_s"), note="nothing kept", missing=missing)

    row.contenders = [
        by_bench(site, "forkyard", "pool", ["one_by_one"], Shown("one by one:"), Part.OURS, "in memory"),
        program("multiprocessing.Pool", "pool", POOL_ONE, ""),
        program("Ray", "rays", RAY_ONE, "ray"),
        program("Dask", "dasks", DASK_ONE, "dask"),
    ]
    return row


def batches(site):
    row = Row("independent", "no-ops that need nothing, in batches", "nodes/s", Better.MORE)
    manifest, store = site.work / "inputs" / "flat.jsonl", site.work / "stores" / "flat"
    command = [site.forkyard, "run", manifest, "--store", store, "--workers", "2", "--quiet"]
    durable = Contender("forkyard run", command, Wall(of=lambda seconds: FLAT / seconds), Part.OURS, "1,000,000 nodes of a manifest, durable; from the command to its exit")
    durable.once = lambda: inputs.noops(manifest, inputs.flat(FLAT))
    durable.prepare = lambda: shutil.rmtree(store, ignore_errors=True)
    row.contenders = [
        by_bench(site, "forkyard", "pool", ["batches"], Shown("in batches:"), Part.OURS, "in memory"),
        durable,
        Contender("multiprocessing.Pool", site.peer("pool", "batches", POOL_BATCHES), Said("per_s"), note="unfair: bare calls of map, no name, no graph, nothing kept"),
    ]
    return row


def by_loop(site, row, test, field, note):
    """A row of the submission queue beside Python's event loops."""
    row.contenders = [by_bench(site, "forkyard", "queue", [test], Shown(r"\(ours\)"), Part.OURS)]
    for loop, missing in [("asyncio", ""), ("uvloop", site.missing("uvloop"))]:
        row.contenders.append(Contender(loop, site.peer("loops", test, loop), Said(field), note=note, missing=missing, times=5))
    return row


def queue(site):
    row = Row("queue", "20,000 callbacks by 10 threads, taken out meanwhile", "M operations/s", Better.MORE)
    return by_loop(site, row, "mixed", "million_per_s", "from Python threads, which hold the interpreter's lock")


def queue_chain(site):
    row = Row("queue-chain", "50,000 callbacks on one thread, each submits the next", "ns each", Better.LESS)
    return by_loop(site, row, "chain", "ns", "Python callbacks, by call_soon")


ROWS = {
    "first": first,
    "independent-one": one,
    "independent": batches,
    "submit": submit,
    "submit-p99": submit_p99,
    "submit-idle": submit_idle,
    "queue": queue,
    "queue-chain": queue_chain,
}
