"""The words of remarks.yaml, as sets and as patterns."""

import re
from functools import cache
from typing import Any

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.replies.words import neutral_parts


@cache
def table(name: str) -> Any:
    return load_table(__package__, "remarks.yaml")[name]


@cache
def words_listed(name: str) -> frozenset[str]:
    return frozenset(table(name).split())


@cache
def pattern_listed(name: str) -> re.Pattern[str]:
    text = table(name)
    if isinstance(text, list):
        return re.compile("|".join(text), re.IGNORECASE)
    # A pattern in several lines of YAML has a blank after each, which is no part of it.
    return re.compile(re.sub(r"\s*\|\s*", "|", text.strip()), re.IGNORECASE)


@cache
def parts_listed(*names: str) -> re.Pattern[str]:
    parts = [part for name in names for part in table(name).split()] + list(neutral_parts())
    return re.compile("|".join(map(re.escape, sorted(parts, key=len, reverse=True))))
