#!/usr/bin/env python3
"""Makes a page for people out of the neighbours that the other nodes found.

Forkyard says where everything is: the words in FORKYARD_ARTIFACT_WORDS, the results of the node
near-012 in FORKYARD_INPUT_NEAR_012. Each result is a list of {"ids", "scores"}, one for every row of its range.
"""

import json
import os
import textwrap

SHOWN = """
    whale penguin shark spider butterfly owl
    bread cheese pizza coffee beer
    violin guitar clarinet piano
    helicopter bicycle submarine locomotive
    joy anger fear nostalgia
    carpenter judge sailor waiter
    heart knee hat sweater sofa
    influenza measles tennis rainstorm
    cathedral hospital grandfather hammer sword
    astronomy grammar gold oak rose tulip
""".split()

WORD_COLUMN, NEIGHBOUR_COLUMN, NEIGHBOURS_A_LINE, PAGE = 14, 20, 5, 110


def read_words():
    with open(os.environ["FORKYARD_ARTIFACT_WORDS"]) as lines:
        return [json.loads(line) for line in lines]


def read_neighbours():
    """What is nearest to each row, in row order: the names of the inputs sort as their ranges do."""
    neighbours = []
    for name in sorted(name for name in os.environ if name.startswith("FORKYARD_INPUT_NEAR_")):
        with open(os.environ[name]) as file:
            neighbours += json.load(file)
    return neighbours


def without_itself(row, found):
    return [(id, score) for id, score in zip(found["ids"], found["scores"]) if id != row]


def entry(word, nearest, words):
    """The word and its gloss, and below it the nearest words in columns."""
    meaning = word["gloss"].split('; "')[0]
    yield f"{word['lemmas'][0]:<{WORD_COLUMN}}{textwrap.shorten(meaning, PAGE - WORD_COLUMN, placeholder=' ...')}"
    cells = [f"{score:.2f} {words[id]['lemmas'][0]}" for id, score in nearest]
    for start in range(0, len(cells), NEIGHBOURS_A_LINE):
        line = "".join(f"{cell:<{NEIGHBOUR_COLUMN}}" for cell in cells[start:start + NEIGHBOURS_A_LINE])
        yield (" " * WORD_COLUMN + line).rstrip()


def main():
    words, neighbours = read_words(), read_neighbours()
    assert len(words) == len(neighbours), f"{len(words)} words, but neighbours of {len(neighbours)}"
    nearest = [without_itself(row, found) for row, found in enumerate(neighbours)]
    row_of = {word["lemmas"][0]: row for row, word in enumerate(words)}
    same_topic = sum(words[row]["topic"] == words[found[0][0]]["topic"] for row, found in enumerate(nearest))

    title = f"Words and what is near them: {len(SHOWN)} of {len(words):,}, by the meaning of their glosses"
    print(title, "=" * len(title), sep="\n")
    for shown in SHOWN:
        row = row_of[shown]
        print("", *entry(words[row], nearest[row], words), sep="\n")
    print(f"\nThe nearest word is one of the same topic for {same_topic:,} of {len(words):,} words.")


if __name__ == "__main__":
    main()
