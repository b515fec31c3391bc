"""What one_copy.py needs numpy for: its files, its task, and processes that share nothing.

    one_copy_numpy.py files DIR            makes the files
    one_copy_numpy.py alone DIR WORKERS    the tasks in so many processes that each load every file; says when which
                                           process answered what, and keeps them until its input ends
"""

import hashlib
import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

SEED = 3_850
TEXTS, DIMENSIONS, TOOLS = 3_850, 3_072, 30
WEIGHTS_BYTES, REGISTRY_BYTES = 104_857_600, 5_000_000
AREAS = ["computation", "data_processing", "file_operations", "integration", "network", "utility"]
VERBS = ["aggregator", "converter", "reader", "scanner", "validator"]
TASKS_EACH, REMOTE_CALL_S = 10, 0.05


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def files(dir):
    chance = np.random.default_rng(SEED)
    np.save(dir / "embeddings.npy", unit(chance.standard_normal((TEXTS, DIMENSIONS))))
    # Of each tool: description, parameters, functionality, and all of it.
    tools = chance.standard_normal((TOOLS, 4, DIMENSIONS))
    np.save(dir / "tools.npy", tools.reshape(4 * TOOLS, DIMENSIONS))
    np.save(dir / "index.npy", unit(tools[:, 3]).astype("f4"))
    (dir / "weights.bin").write_bytes(chance.bytes(WEIGHTS_BYTES))
    md5s = (hashlib.md5(b"text %d" % text).hexdigest() for text in range(TEXTS))
    write_records(dir / "texts.jsonl", md5s, ({"row": int(row)} for row in chance.permutation(TEXTS)))
    examples = ({"examples": [chance.bytes(64).hex() for _ in range(REGISTRY_BYTES // TOOLS // 132)]} for _ in range(TOOLS))
    write_records(dir / "registry.jsonl", (f"{area}_{verb}" for area in AREAS for verb in VERBS), examples)


def write_records(path, ids, records):
    with open(path, "w") as file:
        file.writelines(json.dumps({"id": id, **record}) + "\n" for id, record in zip(ids, records))


def answer(held, md5):
    """One task, as in examples/one_copy.rs: `held` has everything by name, in memory of its own or not."""
    query = unit(held["embeddings"][held["texts"][md5]["row"]]).astype("f4")
    scores = held["index"] @ query
    tools = np.argsort(-scores, kind="stable")[:15][:5]
    near = np.argsort(-(held["embeddings"] @ query.astype("f8")), kind="stable")[:10]
    time.sleep(REMOTE_CALL_S)
    named = [[held["registry"][int(tool)]["id"], float(scores[tool])] for tool in tools]
    return {"near": near.tolist(), "tools": named}


def load(dir):
    held = {name: np.load(dir / f"{name}.npy") for name in ["embeddings", "tools", "index"]}
    held["weights"] = (dir / "weights.bin").read_bytes()
    texts, held["registry"] = (
        [json.loads(line) for line in open(dir / f"{name}.jsonl")] for name in ["texts", "registry"]
    )
    held["texts"] = {text["id"]: text for text in texts}
    return held


def work(dir, md5s, first, answers, over):
    held = load(dir)
    for task, md5 in enumerate(md5s, first):
        found = answer(held, md5)
        answers.put((task, time.perf_counter(), found))
    over.wait()


def alone(dir, workers):
    context = multiprocessing.get_context("spawn")
    answers, over = context.Queue(), context.Event()
    with open(dir / "texts.jsonl") as texts:
        md5s = [json.loads(next(texts))["id"] for _ in range(TASKS_EACH * workers)]
    for first in range(0, len(md5s), TASKS_EACH):
        share = md5s[first:first + TASKS_EACH]
        context.Process(target=work, args=(dir, share, first, answers, over), daemon=True).start()
    print(json.dumps(sorted(answers.get() for _ in md5s)), flush=True)
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["files", dir]:
            files(Path(dir))
        case ["alone", dir, workers]:
            alone(Path(dir), int(workers))
        case _:
            sys.exit(__doc__)
