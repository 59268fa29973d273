"""Singular and plural of English nouns, by rules; the exceptions are in plurals.yaml."""

from typing import Any

from dataflow_grounding._util.lazy import load_table

_PLURALS: dict[str, Any] = load_table(__package__, "plurals.yaml")

ARTICLES = frozenset(["a", "an", "the"])
PAIRS = frozenset(_PLURALS["pairs"].split())
"""Nouns that are plural though they mean one thing: scissors, trousers."""

# Plurals that also end longer words: "men" ends "firemen".
_ENDS_WORDS: tuple[str, ...] = tuple(_PLURALS["ends_words"].split())


def _exceptional_singulars() -> dict[str, str]:
    """Return {"men": "man"}; words of one form, and singulars in -s, are their own."""
    singular_of: dict[str, str] = dict(_PLURALS["irregular"])
    for word in _PLURALS["takes_s"].split():  # "moustache"
        singular_of[word + "s"] = word
    for word in _PLURALS["takes_es"].split():  # "bus", which is no plural of "bu"
        singular_of[word + "es"] = word
        singular_of[word] = word
    for name in ("singular", "same", "pairs"):  # lists of words that are their own singular
        for word in _PLURALS[name].split():
            singular_of[word] = word
    return singular_of


_SINGULAR_OF = _exceptional_singulars()
_PLURAL_OF = {one: several for several, one in _SINGULAR_OF.items() if several != one}


def singular(word: str) -> str:
    """Return the singular of an English noun in lower case; other words change as nouns do."""
    if word in _SINGULAR_OF:
        return _SINGULAR_OF[word]
    for ending in _ENDS_WORDS:
        if word.endswith(ending):  # "firemen": "men" becomes "man"
            return word.removesuffix(ending) + _SINGULAR_OF[ending]
    is_plural = len(word) >= 4 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    if not is_plural:  # "cup", "glass", "cactus", "tennis"
        return word
    if word.endswith("ies"):  # "cherries"
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes", "tzes", "oes")):  # "boxes"
        return word[:-2]
    if word.endswith("uses") and word[-5] not in "aeo":  # viruses, but not causes and blouses
        return word[:-2]
    return word[:-1]


def plural(word: str) -> str:
    if word in _PLURAL_OF:
        return _PLURAL_OF[word]
    if word in _SINGULAR_OF:  # of one form, as "sheep", or a plural already
        return word
    for plural_ending in _ENDS_WORDS:
        singular_ending = _SINGULAR_OF[plural_ending]
        if word.endswith(singular_ending):  # "fireman": "man" becomes "men"
            return word.removesuffix(singular_ending) + plural_ending
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    letter_before_last = word[-2:-1]
    if word.endswith("y") and letter_before_last not in ("a", "e", "i", "o", "u", ""):  # "cherry"
        return word[:-1] + "ies"
    return word + "s"
