"""Rows of single nodes: to the first result, from submission to result, and how many a second."""

import shutil

from compare_parts import inputs
from compare_parts.rows import Better, Contender, First, Part, Row, Said, Wall

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


def from_rust(site, words, figure, note):
    """What a Rust program sees that has the pool in it."""
    program = site.examples / "round_trip"
    missing = "" if program.exists() else "not built: cargo build --release --example round_trip"
    return Contender("forkyard", [program, *words], figure, Part.OURS, note, missing=missing)


def submit(site):
    return trips(site, "submit", "p50_us", "half of all")


def submit_p99(site):
    return trips(site, "submit-p99", "p99_us", "99 of 100")


def trips(site, name, field, how):
    row = Row(name, f"from a program's submission to its result, one at a time: {how}", "us", Better.LESS)

    def program(name, module, count, package):
        missing = site.missing(package) if package else ""
        return Contender(name, site.peer(module, "submit", count), Said(field), missing=missing)

    row.contenders = [
        from_rust(site, ["submit", ROUND_TRIPS], Said(field), "in memory"),
        program("multiprocessing.Pool", "pool", ROUND_TRIPS, ""),
        program("loky", "jobs", ROUND_TRIPS, "joblib"),
        program("Ray", "rays", RAY_TRIPS, "ray"),
        program("Dask", "dasks", DASK_TRIPS, "dask"),
    ]
    return row


def one(site):
    row = Row("independent-one", "no-ops that need nothing, each sent by itself", "nodes/s", Better.MORE)

    def program(name, module, count, package):
        missing = site.missing(package) if package else ""
        return Contender(name, site.peer(module, "one", count), Said("per_s"), note="nothing kept", missing=missing)

    row.contenders = [
        from_rust(site, ["one", POOL_ONE], Said("per_s"), "in memory"),
        program("multiprocessing.Pool", "pool", POOL_ONE, ""),
        program("Ray", "rays", RAY_ONE, "ray"),
        program("Dask", "dasks", DASK_ONE, "dask"),
    ]
    return row


def batches(site):
    row = Row("independent", "no-ops that need nothing, in batches", "nodes/s", Better.MORE)
    manifest, store = site.work / "inputs" / "flat.jsonl", site.work / "stores" / "flat"
    command = [site.forkyard, "run", manifest, "--store", store, "--workers", "2", "--quiet"]
    durable = Contender("forkyard run", command, Wall(of=lambda seconds: FLAT / seconds), note="1,000,000 nodes of a manifest, durable; from the command to its exit")
    durable.once = lambda: inputs.noops(manifest, inputs.flat(FLAT))
    durable.prepare = lambda: shutil.rmtree(store, ignore_errors=True)
    memory = from_rust(site, ["batches", FLAT], Said("per_s"), "in memory")
    if memory.missing:
        durable.part = Part.OURS
    pool = Contender("multiprocessing.Pool", site.peer("pool", "batches", POOL_BATCHES), Said("per_s"), note="unfair: bare calls of map, no name, no graph, nothing kept")
    row.contenders = [memory, durable, pool]
    return row


ROWS = {"first": first, "independent-one": one, "independent": batches, "submit": submit, "submit-p99": submit_p99}
