#!/usr/bin/env python3
"""Cuts this example out of the WordNet embeddings: make_example.py WORDNET_FOLDER (needs numpy).

A word is worth its place when a reader knows it: the 2,000 are common nouns of everyday topics, where
common means that other words' glosses use them (a word of many senses shares its uses between them).
Two runs on the same folder write the same bytes.
"""

import json
import re
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy

WORDS, ROWS_A_NODE, NEIGHBOURS = 2_000, 20, 10

# Topic, the synset above all its words, the most words it may have. The last one fills what is left.
TOPICS = [
    ("animals", "n00015388", 380),
    ("food", "n00021265", 180),
    ("drinks", "n07881800", 40),
    ("instruments", "n03800933", 60),
    ("vehicles", "n04524313", 120),
    ("feelings", "n00026192", 140),
    ("professions", "n09632518", 180),
    ("body", "n05220461", 110),
    ("clothing", "n03051540", 120),
    ("furniture", "n03405725", 40),
    ("diseases", "n14061805", 90),
    ("sports", "n00523513", 50),
    ("weather", "n11524662", 40),
    ("buildings", "n02913152", 60),
    ("family", "n10235549", 50),
    ("tools", "n04451818", 60),
    ("weapons", "n04565375", 40),
    ("sciences", "n05999797", 100),
    ("elements", "n14622893", 80),
    ("plants", "n00017222", WORDS),
]


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def choose(synsets, edges):
    """The row of each chosen word, in row order, with its topic."""
    row_of = {synset["id"]: row for row, synset in enumerate(synsets)}
    children = defaultdict(list)
    for edge in edges:
        if not edge.get("instance"):
            children[edge["parent"]].append(edge["child"])

    uses = Counter(word for s in synsets for word in re.findall("[a-z]+", s["gloss"].lower()))
    senses = Counter(lemma for s in synsets for lemma in s["lemmas"])

    def commonness(row):
        word = synsets[row]["lemmas"][0]
        return (uses[word] + uses[word + "s"]) / senses[word] if re.fullmatch("[a-z]+", word) else 0

    topic_of, taken = {}, set()
    for topic, root, most in TOPICS:
        below, queue = {root}, [root]
        while queue:
            found = set(children[queue.pop()]) - below
            below |= found
            queue.extend(found)
        left = min(most, WORDS - len(topic_of))
        for row in sorted((row_of[id] for id in below), key=lambda row: (-commonness(row), row)):
            word = synsets[row]["lemmas"][0]
            if left > 0 and commonness(row) > 0 and word not in taken:
                topic_of[row] = topic
                taken.add(word)
                left -= 1
    return sorted(topic_of.items())


def main():
    source, here = Path(sys.argv[1]), Path(__file__).parent
    synsets = read_jsonl(source / "keys.jsonl")
    chosen = choose(synsets, read_jsonl(source / "edges.jsonl"))
    assert len(chosen) == WORDS, f"the topics hold {len(chosen)} words only"

    embeddings = numpy.load(source / "embeddings.f16.npy", mmap_mode="r")
    numpy.save(here / "embeddings.f16.npy", embeddings[[row for row, _ in chosen]])
    write_jsonl(here / "words.jsonl", (
        {"id": synsets[row]["id"], "lemmas": synsets[row]["lemmas"], "topic": topic, "gloss": synsets[row]["gloss"]}
        for row, topic in chosen
    ))
    # One neighbour more than shown: the nearest to a word is the word itself.
    write_jsonl(here / "nodes.jsonl", (
        {"id": f"near-{i:03}", "op": "topk", "artifact": "embeddings",
         "params": {"rows": [start, start + ROWS_A_NODE], "k": NEIGHBOURS + 1, "metric": "cosine"}}
        for i, start in enumerate(range(0, WORDS, ROWS_A_NODE))
    ))
    shutil.copyfile(source / "LICENSE.WordNet-3.0.txt", here / "LICENSE.WordNet-3.0.txt")


if __name__ == "__main__":
    main()
