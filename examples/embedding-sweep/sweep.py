"""What the sweep's nodes call: how good a way of searching is, and which way is best."""

import hashlib

import forkyard
import numpy


def topics():
    """The topic of each row: the cache is keyed by the MD5 of a text, and `keys` says in which row that is."""
    keys = forkyard.artifact("keys")
    of_row = {}
    for word in forkyard.artifact("words"):
        text = hashlib.md5(word["gloss"].encode()).hexdigest()
        of_row[keys[text]["row"]] = word["topic"]
    return numpy.array([of_row[row] for row in range(len(of_row))])


def precision(neighbours):
    """The share of neighbours that are of their word's topic. The word itself is no neighbour."""
    of_row = topics()
    right = [
        numpy.mean([of_row[other] == of_row[row] for other in found if other != row])
        for row, found in enumerate(neighbours)
    ]
    return round(float(numpy.mean(right)), 3)


def centred():
    """The vectors without what all of them have in common: a matrix, which later nodes search in place."""
    vectors = forkyard.artifact("vectors").astype("f4")
    return vectors - vectors.mean(axis=0)


def by_metric(found, metric):
    """Judges what `topk` has found by one metric."""
    ids = [one["ids"] for one in found]
    return {"way": "centred", "metric": metric, "dims": 384, "precision": precision(ids)}


def by_size(dims, queries, k):
    """Judges a search by cosine on the first `dims` numbers of each vector, read where all workers have them mapped."""
    vectors = forkyard.artifact("vectors")[:, :dims].astype("f4")
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    nearest = numpy.argsort(-(vectors[:queries] @ vectors.T), axis=1, kind="stable")[:, :k]
    return {"way": "cut", "metric": "cosine", "dims": dims, "precision": precision(nearest)}


def best(metrics, sizes, loss):
    """The fewest numbers that lose no more than `loss` against the best way of all."""
    ways = metrics + sizes
    top = max(way["precision"] for way in ways)
    enough = [way for way in ways if way["precision"] >= top - loss]
    return min(enough, key=lambda way: (way["dims"], -way["precision"]))
