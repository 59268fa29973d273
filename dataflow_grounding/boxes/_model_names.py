"""Model names: whether a name is of a family, such as "qwen2.5-vl".

Providers and routers write names in many ways: "openrouter/qwen/Qwen2.5-VL-7B-Instruct:free" is of
that family. A router's path and prefixes may come before the family's name; sizes, dates, versions
and quantization after it. Any other word makes it another model.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from dataflow_grounding._util.lazy import load_table

_KNOWN: dict[str, Any] = load_table(__package__, "model_names.yaml")
_PREFIXES = frozenset(_KNOWN["prefixes"].split())  # before a name: "google" in google.gemini-2.5
_VENDORS = frozenset(_KNOWN["vendors"].split())  # who makes models: "qwen" in qwen/qwen3-vl
_SUFFIXES = frozenset(_KNOWN["suffixes"].split())  # after a colon: "free" in qwen3-vl:free
# Real names have up to three prefixes. The limit keeps a hostile "us.us.us.…" from taking time that
# grows with the square of its length.
_MOST_PREFIXES = 5

# One word after a family's name, with the signs before it, such as "-instruct" or "-7b". It must
# end where a word ends, so that "v1-4bit" is read as "v1" and "4bit", and no two ways of reading a
# name have to be tried.
_SIGN = r"[-_.:@+\s\[\]()]"
_WORD = re.compile(
    rf"{_SIGN}+(?:{'|'.join([*_KNOWN['kinds'], *_KNOWN['words'].split()])})(?={_SIGN}|$)"
)
_END = re.compile(r"[\])]*$")  # what may be left of a name after its last word: closing brackets


@lru_cache(maxsize=1024)
def squeezed(name: str) -> str:
    return re.sub(r"[-_.\s]", "", name.lower())


def bare_names(model: str) -> list[str]:
    """Return a model's name without its path and what follows a colon or @, squeezed: first as it
    is, then without each known prefix in front of it.
    """
    return [squeezed(re.split(r"[:@]", name, maxsplit=1)[0]) for name in _without_prefixes(model)]


def is_of_family(model: str, family: str) -> bool:
    """Whether a model's name has nothing after its family's name but sizes, dates, versions,
    quantization and the like. In the family's name # is one digit.
    """
    family_before_digit = squeezed(family).partition("#")[0]
    for unprefixed in _without_prefixes(_without_suffixes(model)):
        name = re.sub(r"(?<=\d)p(?=\d)", ".", unprefixed)  # some write 2p5 for 2.5
        # Most families are ruled out by this quick look, without compiling a pattern for each.
        if not squeezed(name).startswith(family_before_digit):
            continue
        beginning = _pattern(family).match(name)
        if beginning and _only_known_words(name, beginning.end()):
            return True
    return False


def _only_known_words(name: str, start: int) -> bool:
    # Whether known words alone, such as "-7b-instruct", follow up to the end of a name.
    word = _WORD.match(name, start)
    while word:
        start = word.end()
        word = _WORD.match(name, start)
    return _END.match(name, start) is not None


@lru_cache(maxsize=1024)
def _pattern(family: str) -> re.Pattern[str]:
    # The word has to end there: "gpt-5" doesn't match "gpt-50", but it does match "gpt5" and the
    # beginning of "gpt-5-mini".
    characters = []
    for character in squeezed(family):
        characters.append(r"\d" if character == "#" else re.escape(character))
    return re.compile(r"[-_.\s]*".join(characters) + r"(?![a-z\d])")


def _without_suffixes(model: str) -> str:
    # qwen/qwen3-vl:any-word -> qwen/qwen3-vl   A vendor has no other model of this name.
    # qwen3-vl:free:2        -> qwen3-vl        Routers add known words, and :2 for an instance.
    # qwen3-vl:any-word      -> as it is        The word may make it another model.
    name = model.lower().partition("#")[0].strip()  # after a # comes where the model is deployed
    before_colon, *words = name.split(":")
    path = re.split(r"[/\\]", before_colon)
    is_vendor_named = len(path) > 1 and path[-2] in _VENDORS
    if is_vendor_named and len(words) == 1:
        return before_colon
    while words and _is_suffix(words[-1]):
        words.pop()
    return ":".join([before_colon, *words])


def _is_suffix(word: str) -> bool:
    return word in _SUFFIXES or (word.isdecimal() and len(word) <= 2)


def _without_prefixes(model: str) -> Iterator[str]:
    # "us.google.gemma", "google.gemma" and "gemma" for "router/us.google.gemma".
    path = model.lower().partition("#")[0].strip().rstrip("/\\")
    name = re.split(r"[/\\]", path)[-1]
    yield name
    for _ in range(_MOST_PREFIXES):
        prefix = re.match(r"([a-z]+)[._-]", name)
        if not prefix or prefix[1] not in _PREFIXES:
            return
        name = name[prefix.end() :]
        yield name
