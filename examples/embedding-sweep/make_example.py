#!/usr/bin/env python3
"""Cuts this example out of ../neighbours (needs numpy): forty words of each of eight topics, a word of each in turn.

The embeddings become what an older harness might have left: a pickled dict, from the MD5 of a text to its vector.
"""

import hashlib
import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy

TOPICS = ["animals", "body", "clothing", "diseases", "feelings", "food", "professions", "vehicles"]
WORDS = 40

here = Path(__file__).parent
source = here.parent / "neighbours"
taken, words = Counter(), []
vectors = numpy.load(source / "embeddings.f16.npy")
for line, vector in zip((source / "words.jsonl").read_text().splitlines(), vectors):
    word = json.loads(line)
    if word["topic"] in TOPICS and taken[word["topic"]] < WORDS:
        taken[word["topic"]] += 1
        kept = {"id": word["id"], "word": word["lemmas"][0], "topic": word["topic"], "gloss": word["gloss"]}
        words.append((taken[word["topic"]], kept, vector))
words.sort(key=lambda word: (word[0], word[1]["topic"]))
cache = {hashlib.md5(word["gloss"].encode()).hexdigest(): vector for _, word, vector in words}
assert len(cache) == len(TOPICS) * WORDS
(here / "words.jsonl").write_text("".join(json.dumps(word, ensure_ascii=False) + "\n" for _, word, _ in words))
(here / "cache.pkl").write_bytes(pickle.dumps(cache, protocol=4))
shutil.copyfile(source / "LICENSE.WordNet-3.0.txt", here / "LICENSE.WordNet-3.0.txt")
