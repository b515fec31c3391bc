"""The manifests of a chaos run, made from its seed. Knows nothing of stores and processes."""

import json
import re
import struct
import sys

WIDTH = 60  # nodes in a layer
NOISE_BYTES = 1 << 20
PRESETS = ["cpu", "io", "memory", "large-data"]
KINDS = {
    "noop": 32, "value": 17, "link": 10, "topk": 14, "exec": 3, "large": 1, "spin": 3, "sleep": 2,
    "python": 8, "coroutine": 10, "alloc": 0,
}
# How often each kind comes in a manifest for a preset, where not as above.
MIXES = {
    "cpu": {"topk": 30, "spin": 10, "python": 12},
    "io": {"exec": 8, "sleep": 8, "coroutine": 25},
    "memory": {"alloc": 6, "value": 30, "large": 3},
    "large-data": {"large": 12, "noop": 16},
}
LARGE = {"large-data": 8}  # times as long
ATTEMPTS = 4  # of a command: what kills one must not fail its node
CALLS = {"quick": 5, "nap": 2, "digest_of": 4, "large": 1, "leave": 2}
COROUTINES = {"wait": 4, "wait_and_digest": 3}
# What Python nodes call. It returns the same at every time, in every process.
REFERENCE = re.compile(r"nodes\.(\w+)\.result")
MODULE = '''
import asyncio, hashlib, json, subprocess, time
import forkyard


def quick(name, numbers):
    return {"name": name, "sum": sum(numbers), "of": forkyard.artifact("m").shape[0]}


def nap(name, seconds):
    time.sleep(seconds)
    return {"name": name}


def digest_of(name, it):
    """What another node has returned, whole or from `inputs`."""
    return {"name": name, "digest": digest(it), "other": digest(forkyard.inputs["it"])}


def large(name, length, as_json):
    text = f"{name} " * (length // (len(name) + 1))
    return {"text": text} if as_json else text.encode()


def leave(name, seconds):
    """Starts what would outlive it."""
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(seconds)
    return {"name": name}


async def wait(name, seconds):
    await asyncio.sleep(seconds)
    return {"name": name}


async def wait_and_digest(name, seconds):
    await asyncio.sleep(seconds)
    return {"name": name, "digest": digest(forkyard.inputs["it"])}


def digest(value):
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
'''


def write_all(space, chance, count, bulk, layouts, presets):
    """`NAME-LAYOUT-PRESET.jsonl` in `space`: `first`; `second`, of which half is as in the first; `bulk`, many quick
    nodes; `hold`, which does nothing for so long that the store is folded meanwhile. What `first` returns depends on
    the preset, and never on the layout. Returns its nodes by preset."""
    write_matrix(space / "m.npy", chance)
    (space / "called.py").write_text(MODULE)
    (space / "noise").write_bytes(chance.randbytes(NOISE_BYTES))
    many, hold = quick(chance, bulk), [{"id": "hold", "op": "sleep", "params": {"seconds": 600}}]
    firsts = {preset: mixed(chance, count, preset) for preset in presets}
    for preset, first in firsts.items():
        second = first[: count // 2] + [{**node, "salt": "second"} for node in first[count // 2 :]]
        texts = {"first": first, "bulk": many, "second": second, "hold": hold}
        texts = {name: "".join(json.dumps(node) + "\n" for node in nodes) for name, nodes in texts.items()}
        for layout in layouts:
            for name, text in texts.items():
                path = space / f"{name}-{layout}-{preset}.jsonl"
                path.write_text(json.dumps(header(layout, preset)) + "\n" + text)
    return firsts


def header(layout, preset):
    run = {"commit": {"every": 64, "within": "50ms"}, "layout": layout, "preset": preset}
    artifacts = {"m": {"path": "m.npy"}, "noise": {"path": "noise"}}
    # The interpreter itself: what stands for it in the PATH may need a home of its own.
    python = {"interpreter": sys.executable, "concurrency": 8}
    groups = {"api": {"concurrency": 2}}  # so that nodes wait there
    return {"forkyard": 1, "artifacts": artifacts, "run": run, "python": python, "groups": groups}


def inputs(space):
    """What a run reads beside its manifest."""
    return [space / name for name in ("m.npy", "noise", "called.py")]


def touched(nodes, name):
    """The nodes that read an artifact or a module of this name, and those that read what such nodes return."""
    direct = {n["id"] for n in nodes if n.get("artifact") == name or n.get("call", "").startswith(f"{name}:")}
    readers = set(direct)
    for node in nodes:  # who needs another stands behind it
        if not readers.isdisjoint(named_in(node)):
            readers.add(node["id"])
    return direct, readers - direct


def after(nodes, these):
    """The nodes that come after any of these, and have other keys if those have."""
    found = set(these)
    for node in nodes:
        if not found.isdisjoint(named_in(node) + node.get("needs", [])):
            found.add(node["id"])
    return found - these


def named_in(node):
    return REFERENCE.findall(json.dumps(node))


def write_matrix(path, chance, rows=200, columns=16):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    numbers = struct.pack(f"<{rows * columns}f", *(chance.uniform(-1, 1) for _ in range(rows * columns)))
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + numbers)


def mixed(chance, count, preset):
    """Layers of nodes of all kinds; each node needs some of the layer before."""
    kinds = {**KINDS, **MIXES[preset]}
    layers, nodes, readable = [], [], []
    for start in range(0, count, WIDTH):
        layer = [f"n{i}" for i in range(start, min(start + WIDTH, count))]
        readable_here = []
        for name in layer:
            fields = node(chance, name, readable, kinds, LARGE.get(preset, 1))
            if layers:
                fields["needs"] = chance.sample(layers[-1], chance.randint(0, min(3, len(layers[-1]))))
            if fields["op"] in ("value", "topk", "exec", "python") and "stdin" not in fields:
                readable_here.append(name)
            nodes.append(fields)
        layers.append(layer)
        readable = readable_here or readable
    return nodes


def quick(chance, count):
    """Values that stand with their result, in a row of their own, and in a file of their own (filesystem)."""
    size = lambda: chance.choice([20, 400, 1500, 2000])
    return [{"id": f"q{i}", "op": "value", "params": {"value": chance.randbytes(size()).hex()}} for i in range(count)]


def reference_to(chance, readable):
    return "{{ nodes.%s.result }}" % chance.choice(readable)


def node(chance, name, readable, kinds, larger):
    """One node; what it reads comes from `readable`."""
    kind = chance.choices(list(kinds), list(kinds.values()))[0]
    if kind in ("link", "exec", "python", "coroutine") and not readable:
        kind = "value"
    fields = {"id": name, "op": kind}
    if kind == "value":
        fields["params"] = {"value": {"name": name, "numbers": [chance.random() for _ in range(3)]}}
    elif kind == "link":
        fields.update(op="value", params={"value": reference_to(chance, readable)})
    elif kind == "topk":
        fields["artifact"] = "m"
        fields["params"] = {"row": chance.randrange(200), "k": chance.randint(1, 8)}
    elif kind == "exec":
        # It starts what outlives it: in its session, in one of its own, with nothing that tells whose it is. And it
        # fails if one of those dies of which it reads.
        left = chance.choice(["(sleep 0.002; true) &", "setsid sleep 600 &", "(env -i sleep 600 &);", "sleep 0.01;"])
        script = f"set -e; cat; echo {name}; {left} cat \"$FORKYARD_INPUT_IT\""
        fields.update(run=["/bin/sh", "-c", script], stdin=reference_to(chance, readable), retry={"attempts": ATTEMPTS})
        fields["inputs"] = {"it": reference_to(chance, readable)}
    elif kind == "large":
        # More than goes through a message: a value of its own file, or several rows; one packs well, one never.
        length = chance.randint(40, 90) * 1000 * larger
        if chance.random() < 0.5:
            fields.update(op="exec", run=["/usr/bin/printf", f"%0{length}d", name[1:]], retry={"attempts": ATTEMPTS})
        else:
            offset = chance.randrange(NOISE_BYTES - length)
            fields.update(op="bytes", artifact="noise", params={"offset": offset, "length": length})
    elif kind in ("spin", "sleep"):
        fields["params"] = {"seconds": chance.randint(1, 4) / 1000}
    elif kind == "alloc":
        fields.update(params={"bytes": chance.randint(1, 8) << 20, "seconds": 0.005}, memory_limit="100MB")
    elif kind in ("python", "coroutine"):
        fields.update(op="python", **call(chance, name, kind, readable))
    return fields


def call(chance, name, kind, readable):
    """What a Python node calls, and with what."""
    calls = CALLS if kind == "python" else COROUTINES
    function = chance.choices(list(calls), list(calls.values()))[0]
    fields = {"call": f"called:{function}", "args": [name]}
    if function == "quick":
        fields["params"] = {"numbers": [chance.randrange(1000) for _ in range(5)]}
        fields["artifact"] = "m"
    elif function in ("nap", "leave", "wait", "wait_and_digest"):
        fields["args"].append(chance.randint(1, 8) / 1000)
    elif function == "digest_of":
        fields["params"] = {"it": reference_to(chance, readable)}
    elif function == "large":
        fields["args"] += [chance.randint(40, 90) * 1000, chance.random() < 0.5]
    if function in ("digest_of", "wait_and_digest"):
        fields["inputs"] = {"it": reference_to(chance, readable)}
    if kind == "coroutine" and chance.random() < 0.5:
        fields["group"] = "api"
    return fields
