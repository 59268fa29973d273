"""JSON lists of any length, one item at a time in memory."""

import json
import re
from collections.abc import Iterator
from typing import IO

_CHUNK, _FIRST, _NEXT = 2**16, re.compile(r"\s*\[\s*(\])?"), re.compile(r"\s*(?:,\s*|(\]))")


def items_of(file: IO[str]) -> Iterator[str]:
    """The texts of the items of the list that a file holds. Raises ValueError where it holds something else."""
    text, at, between, decode = file.read(_CHUNK), 0, _FIRST, json.JSONDecoder().raw_decode
    if not text.lstrip().startswith("["):
        raise ValueError
    while not ((found := between.match(text, at)) and found[1]):
        try:
            start = found.end() if found else len(text)
            end = decode(text, start)[1]
            if end == len(text):  # a number may go on
                raise ValueError
        except ValueError:
            if not (more := file.read(max(_CHUNK, len(text)))):
                raise
            text, at = text[at:] + more, 0
        else:
            yield text[start:end]
            at, between = end, _NEXT
    if text[found.end() :].strip() or file.read().strip():
        raise ValueError
