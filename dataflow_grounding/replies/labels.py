"""Which phrase of the request a label in the reply means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_WORD = re.compile(r"[^\W_]+")
_EMPTY_WORDS = frozenset(
    {
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "with",
        "and",
        "is",
        "are",
        "his",
        "her",
        "its",
        "their",
        "this",
        "that",
        "one",
        "some",
    }
)
_NEGATIONS = frozenset(["no", "not", "without"])
_NUMBERING = re.compile(r"\s*(?:[#_-]|\s|\()\s*\d{1,3}\)?$")
_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def matching_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases that `label` means: none, one, or all that read the same.

    First the phrases equal to it, up to case, spacing, and quotation marks; then equal without articles and a number at
    the end ("cat 2"); then the one phrase that shares at least half of the words in both, more than any other does, and
    agrees in "no", "not", "without". Words are compared without a plural s; scripts without spaces by pairs of characters.
    """
    same = equal_ids(label, phrases) or [i for i, phrase in phrases.items() if _bare(phrase) == _bare(label) != ""]
    if same:
        return same
    shares = {i: _likeness(label, phrase) for i, phrase in phrases.items()}
    best = max(shares.values(), default=0.0)
    close = [i for i, share in shares.items() if share == best]
    texts = {_bare(phrases[i]) for i in close}
    return close if best >= 0.5 and len(texts) == 1 else []


def equal_ids(label: str, phrases: Mapping[int, str]) -> list[int]:
    """Return the ids of the phrases equal to `label`, up to case, spacing, and quotation marks."""
    wanted = _plain(label)
    return [i for i, phrase in phrases.items() if wanted and _plain(phrase) == wanted]


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" \"'`“”‘’.,;:*")


def _bare(text: str) -> str:
    plain = _plain(text)
    return " ".join(word for word in _NUMBERING.sub("", plain).split() if word not in _EMPTY_WORDS) or plain


def _likeness(one: str, other: str) -> float:
    a, b = _terms(one), _terms(other)
    if not a or not b or (a & _NEGATIONS) != (b & _NEGATIONS):
        return 0.0
    return len(a & b) / len(a | b)


def _terms(text: str) -> frozenset[str]:
    terms: set[str] = set()
    for word in _WORD.findall(_plain(text)[:500]):
        if _SPACELESS.search(word):
            terms.update(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        elif word not in _EMPTY_WORDS:
            terms.add(word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word)
    return frozenset(terms)
