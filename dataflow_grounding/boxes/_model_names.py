"""Model names: whether a name is of a family, such as "qwen2.5-vl".

Providers and routers write names in many ways: "openrouter/qwen/Qwen2.5-VL-7B-Instruct:free" is of
that family. A router's path and prefixes may come before the family's name; sizes, dates, versions
and quantization after it. Any other word makes it another model.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from dataflow_grounding._util.lazy import load_table

_KNOWN = load_table(__package__, "model_names.yaml")
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
    """Return a model's squeezed name without path and tag, then without each known prefix."""
    return [squeezed(re.split(r"[:@]", name, maxsplit=1)[0]) for name in _without_prefixes(model)]


def is_of_family(model: str, family: str) -> bool:
    """Whether a model's name has nothing but sizes, dates and the like after its family's."""
    family_before_digit = squeezed(family).partition("#")[0]
    for unprefixed in _without_prefixes(_without_suffixes(model)):
        name = re.sub(r"(?<=\d)p(?=\d)", ".", unprefixed)  # some write 2p5 for 2.5
        # Most families are ruled out by this quick look, without compiling a pattern for each.
        if not squeezed(name).startswith(family_before_digit):
            continue
        beginning = _pattern(family).match(name)
        if not beginning:
            continue
        end = beginning.end()
        word = _WORD.match(name, end)
        while word:  # such as "-7b" and "-instruct"
            end = word.end()
            word = _WORD.match(name, end)
        if _END.match(name, end):
            return True
    return False


@lru_cache(maxsize=1024)
def _pattern(family: str) -> re.Pattern[str]:
    """In the family's name, # is one digit."""
    characters = []
    for character in squeezed(family):
        characters.append(r"\d" if character == "#" else re.escape(character))
    # The word has to end there: "gpt-5" doesn't match "gpt-50", but it does match "gpt5" and the
    # beginning of "gpt-5-mini".
    return re.compile(r"[-_.\s]*".join(characters) + r"(?![a-z\d])")


def _without_suffixes(model: str) -> str:
    name = model.lower().partition("#")[0].strip()  # after a # comes where the model is deployed
    before_colon, *words = name.split(":")
    path = re.split(r"[/\\]", before_colon)
    is_vendor_named = len(path) > 1 and path[-2] in _VENDORS
    if is_vendor_named and len(words) == 1:
        return before_colon  # of qwen/qwen3-vl:any-word; the vendor has no other model of this name
    while words:
        word = words[-1]
        is_number_of_instance = word.isdecimal() and len(word) <= 2  # as routers write it
        if word not in _SUFFIXES and not is_number_of_instance:
            break  # the word may make it another model
        words.pop()
    return ":".join([before_colon, *words])


def _without_prefixes(model: str) -> Iterator[str]:
    """Yield "us.google.gemma", "google.gemma" and "gemma" for "router/us.google.gemma"."""
    path = model.lower().partition("#")[0].strip().rstrip("/\\")
    name = re.split(r"[/\\]", path)[-1]
    yield name
    for _ in range(_MOST_PREFIXES):
        prefix = re.match(r"([a-z]+)[._-]", name)
        if not prefix or prefix[1] not in _PREFIXES:
            return
        name = name[prefix.end() :]
        yield name
