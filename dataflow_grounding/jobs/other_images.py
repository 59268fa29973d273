"""Phrases of a job's other images, as far as its input says them: for `workflow.negatives`."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from dataflow_grounding._util.extensions import extension
from dataflow_grounding.boxes.regions import types_of
from dataflow_grounding.data.classes import class_key

LOOKED_AT = 300  # first rows; with more of them the phrases of the earlier ones would change
MOST_PHRASES = 500
MOST_CHARACTERS = 60  # of a phrase that may be any image's; longer ones tell of one image


def phrases_in_captions(captions: Iterable[Any]) -> list[str]:
    """The noun phrases of the first captions, each once; none where nothing can tell them.

    What is no text, or in another language than English, has none.
    """
    extract = extension("phrases", "embedded")
    if extract is None:
        return []
    texts = []
    for caption in islice(captions, LOOKED_AT):
        if isinstance(caption, str):
            texts += [phrase["text"] for phrase in extract(caption)["expressions"]]
    return different(texts)


def types_in_regions(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The types of the regions of the first records, each once."""
    types = []
    for record in islice(records, LOOKED_AT):
        types += types_of(record)
    return different(types)


def different(texts: Iterable[Any]) -> list[str]:
    """The texts that may be phrases, each once, whether in capitals or not."""
    by_key: dict[str, str] = {}
    for text in texts:
        if isinstance(text, str) and text.strip() and len(text) <= MOST_CHARACTERS:
            by_key.setdefault(class_key(text), text)
    return list(by_key.values())[:MOST_PHRASES]
