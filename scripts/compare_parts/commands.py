"""The row of commands: how many programs that do nothing are started, drained and waited for in a second."""

import shutil

from compare_parts import inputs
from compare_parts.benches import by_bench
from compare_parts.rows import Better, Contender, Part, Row, Said, Wall

COMMANDS, PARALLEL, QUEUE, FLOOR = 5_000, 500, 500, 5_000
PROGRAM = "/bin/true"


def commands(site):
    row = Row("exec", f"{PROGRAM}, two at a time", "commands/s", Better.MORE)
    row.contenders = [ours(site), floor(site), xargs(site), ninja(site), parallel(site), hyperqueue(site)]
    return row


def rate(count):
    return Wall(of=lambda seconds: count / seconds)


def ours(site):
    manifest, store = site.work / "inputs" / "exec.jsonl", site.work / "stores" / "exec"
    command = [site.forkyard, "run", manifest, "--store", store, "--workers", "2", "--quiet"]
    contender = Contender("forkyard", command, rate(COMMANDS), Part.OURS, "both outputs kept, durable; from the command to its exit")
    # Each has a salt, else equal commands would be run once.
    nodes = [{"id": f"n{at}", "op": "exec", "run": [PROGRAM], "salt": str(at)} for at in range(COMMANDS)]
    contender.once = lambda: inputs.manifest(manifest, nodes)
    contender.prepare = lambda: shutil.rmtree(store, ignore_errors=True)
    return contender


def floor(site):
    return by_bench(site, "posix_spawn, two pipes drained", "floors", ["spawns", PROGRAM, FLOOR, 2], Said("commands_per_s"), Part.FLOOR)


def lines(site, count):
    return inputs.once(site.work / "inputs" / f"lines-{count}", lambda file: file.write("x\n" * count))


def xargs(site):
    path = lines(site, COMMANDS)
    command = ["xargs", "-a", path, "-P", "2", "-n", "1", PROGRAM]
    return Contender("xargs -P2", command, rate(COMMANDS), note="keeps nothing, reads no output")


def ninja(site):
    dir = site.work / "ninja" / "exec"
    command = [site.bin / "ninja", "-j2", "-C", dir, "--quiet"]
    contender = Contender("ninja", command, rate(COMMANDS), note="one pipe; by /bin/sh", missing=site.missing("ninja"))
    contender.once = lambda: inputs.ninja(dir / "build.ninja", inputs.flat(COMMANDS), PROGRAM)
    return contender


def parallel(site):
    command = ["parallel", "--will-cite", "-j2", "-a", lines(site, PARALLEL), "-N1", f"{PROGRAM} {{}}"]
    return Contender("GNU parallel", command, rate(PARALLEL), note=f"{PARALLEL:,} commands", missing=site.missing("parallel"))


def hyperqueue(site):
    return Contender("HyperQueue", site.peer("commands", "commands", QUEUE), Said("per_s"), note=f"{QUEUE:,} commands; start apart, outputs thrown away", missing=site.missing("hyperqueue"))


ROWS = {"exec": commands}
