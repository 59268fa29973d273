"""The words of phrases: what they name, by which words they choose, and which of them mean one thing, or can't tell."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import combinations, islice
from typing import Any

import yaml

from dataflow_grounding.embedded import words
from dataflow_grounding.embedded.noun_phrases import read_noun_phrase, tokenize
from dataflow_grounding.geometry import MERGE_IOU, iou
from dataflow_grounding.replies.labels import head_word

_MORE: dict[str, str] = yaml.safe_load(files(__package__).joinpath("attributes.yaml").read_text("utf-8"))
_KNOWN: dict[str, Iterable[str]] = {
    "colour": {*words.OTHER_COLORS, *words.CHROMATIC, *words.ACHROMATIC, *words.MANY_COLORED, *words.TONES},
    "size": words.SIZES,
    "place": {*words.DEPTHS, *words.POSITIONS},
    "number": {*words.VAGUE_COUNTS, *words.NUMBERS},
}
ATTRIBUTES = {kind: frozenset([*more.split(), *_KNOWN.get(kind, ())]) for kind, more in _MORE.items()}
"""Kind of attribute → the English words that make it."""
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_EQUAL_IOU = 0.95


def words_of(phrase: str) -> list[str]:
    """The words of a phrase in lower case; hyphens and apostrophes join."""
    return _WORD.findall(phrase.lower())


@lru_cache(maxsize=65536)
def head_of(phrase: str) -> str:
    """What a phrase names, in the singular."""
    tokens = tokenize(phrase[:400])
    read = read_noun_phrase(tokens, 0, is_label=True) if tokens else None
    return words.singular(tokens[read.head].lower) if read and read.head < len(tokens) else head_word(phrase)


def look_alikes(heads: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of words of 5 letters or more that are equal with a letter less in each, or without their ending."""
    made = defaultdict[str, set[str]](set)
    for head in heads:
        if len(head) >= 5:
            less = (head[:place] + head[place + 1 :] for place in range(len(head)))
            for form in {head, re.sub("(ing|er|ed)$", "", head), *less}:
                made[form].add(head)
    return sorted({pair for alike in made.values() for pair in combinations(sorted(alike), 2)})


def said_twice(expressions: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts that are an earlier expression's words again, up to case and spacing, with other boxes."""
    first: dict[str, Mapping[str, Any]] = {}
    return [one["text"] for one in expressions if _boxes(first.setdefault(_plain(one), one)) != _boxes(one)]


def sharing_boxes(expressions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Texts of two expressions of other words that have a box in common (IoU 0.9), and whether all (IoU 0.95)."""
    boxes = sorted((box, place) for place, one in enumerate(expressions) for box in _boxes(one))
    near, equal = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for at, (box, place) in enumerate(boxes, 1):
        for other, second in islice(boxes, at, None):
            if other[0] > box[0] + (box[2] - box[0]) * (1.01 - MERGE_IOU):  # from here on none overlaps so much
                break
            overlap, pair = iou(box, other), (min(place, second), max(place, second))
            near[pair] += overlap >= MERGE_IOU
            equal[pair] += overlap >= _EQUAL_IOU
    for (one, other), count in near.items():
        a, b = expressions[one], expressions[other]
        if count and _plain(a) != _plain(b):
            yield a["text"], b["text"], equal[one, other] == len(a["instances"]) == len(b["instances"])


def _plain(expression: Mapping[str, Any]) -> str:
    return " ".join(expression["text"].split()).casefold()


def _boxes(expression: Mapping[str, Any]) -> list[Any]:
    return sorted(tuple(instance["bbox"]) for instance in expression["instances"])
