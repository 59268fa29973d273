"""The words of phrases: what they name, by which words they choose, and which of them mean one thing, or can't tell."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import yaml

from dataflow_grounding.embedded import words
from dataflow_grounding.embedded.noun_phrases import read_noun_phrase, tokenize
from dataflow_grounding.geometry import MERGE_IOU, box_of, iou
from dataflow_grounding.replies.labels import head_word

_KINDS: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("attributes.yaml").read_text("utf-8"))
ATTRIBUTES = {
    kind: frozenset(row["more"].split()).union(*(getattr(words, name) for name in row["lists"]))
    for kind, row in _KINDS.items()
}
"""Kind of attribute → the English words that make it."""


def words_of(phrase: str) -> list[str]:
    """The words of a phrase in lower case; hyphens and apostrophes join."""
    return [token.lower for token in tokenize(phrase) if token.lower[0].isalnum()]


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
    first: dict[str, list[Any]] = {}
    return [one["text"] for one in expressions if first.setdefault(_plain(one), _boxes(one)) != _boxes(one)]


def sharing_boxes(expressions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """Texts of two expressions of other words that have a box in common (IoU 0.9), and whether they have all."""
    for one, other in combinations(expressions, 2):
        a, b = _boxes(one), _boxes(other)
        near = sum(any(iou(box, its) >= MERGE_IOU for its in b) for box in a)
        if near and _plain(one) != _plain(other):
            yield one["text"], other["text"], near == len(a) == len(b)


def _plain(expression: Mapping[str, Any]) -> str:
    return " ".join(expression["text"].split()).casefold()


def _boxes(expression: Mapping[str, Any]) -> list[Any]:
    return sorted(box_of(instance["bbox"]) for instance in expression["instances"])
