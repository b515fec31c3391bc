"""Rows of whole graphs: a million nodes, a hundred thousand, one after the other, and again without a change."""

import shutil
import subprocess

from compare_parts import inputs
from compare_parts.environment import surroundings
from compare_parts.rows import Better, Contender, Part, Row, Said, Wall

MILLION, DAG, RERUN, CHAIN = (1000, 1000), (1000, 100), (100, 100), 100_000
RAY_DAG, DASK_DAG, POOL_DAG, NINJA_DAG = (100, 100), (30, 100), (200, 100), (30, 100)
NINJA_CHAIN, RAY_CHAIN, DASK_CHAIN, POOL_CHAIN = 10_000, 1_000, 300, 10_000
SMALL = (10, 100)                   # For those who need seconds to look at a thousand nodes.


def size(graph):
    layers, width = graph
    return layers * width


def fewer(done, wanted):
    """A note, and what makes the figure that of the whole."""
    times = wanted / done
    return f"{done:,} nodes, the rate carried on", lambda seconds: seconds * times


def ours(site, name, needs, row, **more):
    """A run of a manifest into a store that was not there before."""
    path = site.work / "inputs" / f"{name}.jsonl"
    store = site.work / "stores" / row
    command = [site.forkyard, "run", path, "--store", store, "--workers", "2", "--quiet"]
    contender = Contender("forkyard", command, Wall(), Part.OURS, "durable; from the command to its exit", **more)
    contender.once = lambda: inputs.noops(path, needs)
    contender.prepare = lambda: shutil.rmtree(store, ignore_errors=True)
    return contender


def again(contender, times):
    """The same run in the store that it has filled."""
    def fill():
        contender.once()
        contender.prepare()
        subprocess.run(list(map(str, contender.command)), check=True, capture_output=True, env=surroundings())

    return Contender(contender.name, contender.command, Wall(), Part.OURS, "nothing to do", once=fill, times=times)


def by_program(site, name, program, graph, wanted, package):
    """A peer's program that runs a part of the graph and says how long that took."""
    note, of = fewer(size(graph), wanted)
    note += "; start apart, nothing kept"
    return Contender(name, site.peer(program, "dag", *graph), Said("seconds", of=of), note=note, missing=site.missing(package) if package else "")


def by_ninja(site, name, graph, rule, note, of=lambda seconds: seconds):
    """ninja over the same graph, in a directory of its own."""
    dir = site.work / "ninja" / name
    command = [site.bin / "ninja", "-j2", "-C", dir, "--quiet"]
    made = Contender("ninja", command, Wall(of=of), note=note, missing=site.missing("ninja"))
    made.once = lambda: inputs.ninja(dir / "build.ninja", graph, rule)
    return made


def million(site):
    wanted = size(MILLION)
    row = Row("million", "1,000,000 no-op nodes with 3 needs each, 1,000 layers", "s", Better.LESS)
    phony = by_ninja(site, "million", inputs.layered(*MILLION), "", "phony: names only, nothing is run or kept")
    row.contenders = [
        ours(site, "million", inputs.layered(*MILLION), "million"),
        phony,
        by_program(site, "Ray", "rays", RAY_DAG, wanted, "ray"),
        by_program(site, "Dask", "dasks", DASK_DAG, wanted, "dask"),
    ]
    return row


def million_again(site):
    row = Row("million-again", "the same again, no change", "s", Better.LESS)
    row.contenders = [again(ours(site, "million", inputs.layered(*MILLION), "million-again"), 1)]
    return row


def dag(site):
    wanted = size(DAG)
    row = Row("dag", "100,000 no-op nodes with 3 needs each, 1,000 layers of 100", "s", Better.LESS)
    note, of = fewer(size(NINJA_DAG), wanted)
    row.contenders = [
        ours(site, "dag", inputs.layered(*DAG), "dag"),
        by_ninja(site, "dag", inputs.layered(*DAG), "", "phony: names only, nothing is run or kept"),
        by_program(site, "graphlib + process pool", "pool", POOL_DAG, wanted, ""),
        by_program(site, "Ray", "rays", RAY_DAG, wanted, "ray"),
        by_program(site, "Dask", "dasks", DASK_DAG, wanted, "dask"),
        by_ninja(site, "dag-true", inputs.layered(*NINJA_DAG), "/bin/true", f"{note}; a process a node", of),
    ]
    return row


def rerun(site):
    row = Row("rerun", "10,000 nodes, 100 layers, again without a change", "s", Better.LESS)
    count, width = size(RERUN), RERUN[1]
    first = ours(site, "rerun", inputs.layered(*RERUN), "rerun")
    ninja = by_ninja(site, "rerun", inputs.layered(*RERUN), "touch $out", "by the times of files")
    written = ninja.once

    def build():
        written()
        subprocess.run(list(map(str, ninja.command)), check=True, capture_output=True)

    ninja.once = build
    made = site.work / "make"

    def prepare_make():
        inputs.make(made / "Makefile", inputs.layered(*RERUN))
        inputs.files_in_order(made, count, width)

    make = Contender("make", ["make", "-j2", "-C", made, "--silent"], Wall(), once=prepare_make, missing=site.missing("make"), note="by the times of files")
    cache = site.work / "joblib"
    joblib = Contender("joblib.Memory", site.peer("jobs", "rerun", *RERUN, cache), Said("seconds"), missing=site.missing("joblib"))
    joblib.note = "start apart"
    joblib.once = lambda: subprocess.run(list(map(str, joblib.command)), check=True, capture_output=True)
    for quick in [make, ninja]:
        quick.times = 5
    row.contenders = [again(first, 5), ninja, make, joblib, luigi(site, count), snakemake(site)]
    return row


def luigi(site, count):
    note, of = fewer(size(SMALL), count)
    dir = site.work / "luigi"
    command = site.peer("files", "luigi", *SMALL, dir)
    return Contender("Luigi", command, Said("seconds", of=of), note=f"{note}; start apart", missing=site.missing("luigi"), once=lambda: inputs.files_in_order(dir, size(SMALL), SMALL[1]))


def snakemake(site):
    dir = site.work / "snakemake"

    def write():
        inputs.files_in_order(dir, size(SMALL), SMALL[1])
        (dir / "Snakefile").write_text("".join(snakefile()))

    command = [site.bin / "snakemake", "--cores", "2", "--directory", dir, "--snakefile", dir / "Snakefile", "--quiet", "all", "--rerun-triggers", "mtime"]
    return Contender("Snakemake", command, Wall(), note=f"{size(SMALL):,} nodes only", missing=site.missing("snakemake"), once=write)


def snakefile():
    last = range(size(SMALL) - SMALL[1], size(SMALL))
    yield f"rule all:\n    input: {[f'n{at}' for at in last]}\n"
    for at, needs in enumerate(inputs.layered(*SMALL)):
        yield f"rule r{at}:\n    input: {[f'n{need}' for need in needs]}\n    output: 'n{at}'\n    shell: 'touch {{output}}'\n"


def chain(site):
    row = Row("chain", "100,000 nodes one after the other", "s", Better.LESS)
    ninja_note, ninja_of = fewer(NINJA_CHAIN, CHAIN)

    def of_program(name, program, count, package):
        note, of = fewer(count, CHAIN)
        missing = site.missing(package) if package else ""
        return Contender(name, site.peer(program, "chain", count), Said("seconds", of=of), note=f"{note}; start apart, nothing kept", missing=missing)

    row.contenders = [
        ours(site, "chain", inputs.chain(CHAIN), "chain"),
        by_ninja(site, "chain", inputs.chain(NINJA_CHAIN), "", f"{ninja_note} (100,000 overflow its stack); phony", ninja_of),
        of_program("multiprocessing.Pool", "pool", POOL_CHAIN, ""),
        of_program("Ray", "rays", RAY_CHAIN, "ray"),
        of_program("Dask", "dasks", DASK_CHAIN, "dask"),
    ]
    return row


ROWS = {"million": million, "million-again": million_again, "dag": dag, "rerun": rerun, "chain": chain}
