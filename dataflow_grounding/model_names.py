"""Model names: the family that a name is of, behind routers' prefixes, with sizes, dates and quantisation after it."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from dataflow_grounding.tables import load_table

_KNOWN: dict[str, Any] = load_table(__package__, "model_names.yaml")
_AFTER = re.compile(rf"(?:[-_.:@+\s\[\]()]+(?:{'|'.join([*_KNOWN['words'].split(), *_KNOWN['kinds']])}))*[\])]*")


def squeezed(name: str) -> str:
    """Return `name` in lower case without the signs that are written differently from place to place."""
    return re.sub(r"[-_.\s]", "", name.lower())


def bare_names(model: str) -> list[str]:
    """Return the model's name without its path and tag, squeezed: as it is, and without each prefix in front of it.

    "openrouter/google/gemini-2.5-flash:free" gives "gemini25flash".
    """
    return [squeezed(re.split(r"[:@]", name, maxsplit=1)[0]) for name in _without_prefixes(model)]


def is_of_family(model: str, family: str) -> bool:
    """Whether `model` is a name of the family: `family`, then only sizes, dates, versions, quantisation and the like.

    `family` is the name's beginning; case and the signs - _ . don't count, # is one digit.
    """
    names = (re.sub(r"(?<=\d)p(?=\d)", ".", name) for name in _without_prefixes(model))  # 2p5: for names without dots
    beginnings = ((name, _pattern(family).match(name)) for name in names)
    return any(begun and _AFTER.fullmatch(name, begun.end()) for name, begun in beginnings)


@lru_cache(maxsize=1024)
def _pattern(family: str) -> re.Pattern[str]:
    signs = [r"\d" if sign == "#" else re.escape(sign) for sign in squeezed(family)]
    return re.compile(r"[-_.\s]*".join(signs) + r"(?![a-z\d])")


def _without_prefixes(model: str) -> Iterator[str]:
    # After a # comes where the model is deployed.
    name = re.split(r"[/\\]", model.lower().partition("#")[0].strip().rstrip("/\\"))[-1]
    yield name
    while (prefix := re.match(r"([a-z]+)[._-]", name)) and prefix[1] in _KNOWN["prefixes"].split():
        name = name[prefix.end() :]
        yield name
