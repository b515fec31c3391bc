"""What costs nothing: making requests, judging answers, summing up. Works with numpy and without."""

from collections import Counter

import forkyard
import heavy


def vector(row):
    """The embedding of a prompt, out of the cache that all workers share."""
    cache = forkyard.artifact("cache")  # a numpy array, or a memoryview of two dimensions
    return [float(cache[row, column]) for column in range(cache.shape[1])]


def request(row, near):
    """What the API is sent: the prompt, and the tools that are nearest to it."""
    prompt, registry = forkyard.artifact("prompts")[row], forkyard.artifact("tools")
    names = ["name", "description", "argument"]
    tools = [{name: registry[tool][name] for name in names} for tool in near]
    spoken = " ".join([prompt["text"], *(tool["description"] for tool in tools)])
    return {"id": prompt["id"], "text": prompt["text"], "tools": tools, "tokens": heavy.count_tokens(spoken)}


def score(answer):
    """Whether an answer is what its prompt expects, and if not, why not."""
    prompt = forkyard.artifact("prompts")[answer["id"]]
    tool = forkyard.artifact("tools")[prompt["expects"]]
    why = None
    if tool["name"] not in answer["offered"]:
        why = "was not among the nearest"
    elif answer["tool"] != tool["name"]:
        why = "was not chosen"
    elif answer["arguments"].get(tool["argument"], "?") not in prompt["text"]:
        why = "got a wrong argument"
    return {"id": prompt["id"], "tool": tool["name"], "why": why, "tokens": answer["tokens"]}


def report():
    scores = forkyard.inputs["scores"]
    failed = [score for score in scores if score["why"] is not None]
    by_tool = Counter(score["tool"] for score in failed)
    return {
        "prompts": len(scores),
        "passed": len(scores) - len(failed),
        "tokens": sum(score["tokens"] for score in scores),
        "failed_because": Counter(score["why"] for score in failed),
        "failed_by_tool": {tool: by_tool[tool] for tool in sorted(by_tool)},
    }
