"""Phrases of a job's other images, as far as its input has them: for `workflow.negatives`.

The thing of another image's phrase is likely to be absent from this one.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from dataflow_grounding.boxes.regions import types_of
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.embedded.captions import extract_expressions

LOOKED_AT = 300
"""How many first rows count, so that more rows don't change what the earlier ones are asked."""
MOST_PHRASES = 500  # that are returned
MOST_CHARACTERS = 60  # of a phrase that may be any image's; longer ones tell of one image


def phrases_in_captions(captions: Iterable[Any]) -> list[str]:
    """Return English noun phrases of the first captions; none where nothing can find them."""
    texts = []
    for caption in islice(captions, LOOKED_AT):
        if isinstance(caption, str):
            texts += [phrase["text"] for phrase in extract_expressions(caption)["expressions"]]
    return distinct_phrases(texts)


def types_in_regions(records: Iterable[JsonObject]) -> list[str]:
    types = []
    for record in islice(records, LOOKED_AT):
        types += types_of(record)
    return distinct_phrases(types)


def distinct_phrases(texts: Iterable[Any]) -> list[str]:
    """Return the first texts that may be phrases; capitals and blanks make no difference."""
    by_key: dict[str, str] = {}
    for text in texts:
        if isinstance(text, str) and text.strip() and len(text) <= MOST_CHARACTERS:
            by_key.setdefault(class_key(text), text)
    return list(by_key.values())[:MOST_PHRASES]
