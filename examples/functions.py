"""Functions that the examples of docs/manifest.md call."""

import asyncio

import forkyard


def mean(numbers, digits=2):
    print("mean of", len(numbers), "numbers")  # `forkyard logs mean`
    return round(sum(numbers) / len(numbers), digits)


def first_lemma(row):
    return forkyard.artifact("words")[row]["lemmas"][0]


def shape():
    return list(forkyard.artifact("vectors").shape)


def size():
    return forkyard.artifact("vectors").nbytes


def count():
    forkyard.state["count"] = forkyard.state.get("count", 0) + 1


def counted():
    return forkyard.state["count"]


async def ask(question):
    await asyncio.sleep(0.05)  # a call over the network
    if question == "busy" and forkyard.attempt == 1:
        raise forkyard.RetryAfter(0.05, "429 Too Many Requests")
    return question.upper()
