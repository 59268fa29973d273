"""Phrases that may not be in their picture: made here, kept or not after their check.

Nothing is asked here.
"""

import hashlib
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import NEGATIVE, Record
from dataflow_grounding.operators._box_decisions import (
    Expression,
    check_of,
    presence_of,
    verdicts_of,
)
from dataflow_grounding.tasks.negatives import Changed

COLUMN = "negative_candidates"
"""Phrases that were made up and aren't, or not yet, known to be absent."""

BEYOND_A_CROP = ("relation", "number")
"""What of a phrase a crop of one thing can't tell."""

OTHER_IMAGE = "other_image"
"""The `change` of a phrase that is another image's."""


def candidates_of(
    record: Record, own: Sequence[Expression], changed: Sequence[Changed], others: Sequence[str]
) -> list[Expression]:
    """The candidates as expressions without boxes, the kinds of change taking turns.

    Args:
        record: Their record.
        own: Its expressions; the places of the changed ones are those in here.
        changed: What they were changed to.
        others: Phrases of other images.
    """
    by_change: dict[str, list[dict[str, Any]]] = {}
    for place, change, text in changed:
        from_id = own[place]["expression_id"]
        row = {"text": text, "change": change, "changed_from": from_id}
        by_change.setdefault(change, []).append(row)
    made = {class_key(answer.text) for answer in changed}
    for text in others:
        if class_key(text) not in made:
            row = {"text": text, "change": OTHER_IMAGE}
            by_change.setdefault(OTHER_IMAGE, []).append(row)
    rows = []
    for turn in itertools.zip_longest(*by_change.values()):
        rows += [row for row in turn if row is not None]
    taken = {expression["expression_id"] for expression in own}
    number = 0
    candidates = []
    for row in rows:
        while f"{record.unique_id}#n{number}" in taken:
            number += 1
        own_id = f"{record.unique_id}#n{number}"
        taken.add(own_id)
        candidates.append({"expression_id": own_id, "source": NEGATIVE, **row, "instances": []})
    return candidates


def without_told(told: Collection[str], changed: Sequence[Changed]) -> list[Changed]:
    """The changed phrases without those that stand in something that is `told` of the image.

    What is in its caption is there, though nobody boxed it.
    """
    texts = [class_key(text) for text in told]
    return [answer for answer in changed if not _stands_in(texts, class_key(answer.text))]


def _stands_in(texts: Collection[str], key: str) -> bool:
    """Whether any of the texts holds these words."""
    return any(key in text for text in texts)


def of_other_images(
    record: Record, phrases: Sequence[str], count: int, told: Collection[str]
) -> list[str]:
    """Some of the phrases, the same ones for the same record.

    Which, a digest decides of the record's id and each phrase: where phrases are added later, most
    records keep theirs.

    Args:
        record: The record.
        phrases: The phrases of all images.
        count: How many are wanted.
        told: What is said of the image: none that stands in there is taken.
    """
    texts = [class_key(text) for text in told]
    ranked = []
    for phrase in phrases:
        key = class_key(phrase)
        if not _stands_in(texts, key):
            digest = hashlib.sha256(f"{record.unique_id}\0{key}".encode()).digest()
            ranked.append((digest, phrase))
    return [phrase for _, phrase in sorted(ranked)[:count]]


def why_kept_out(candidate: Expression) -> str:
    """Why a candidate can't be taken as a negative: it isn't known to be absent. Empty where it is.

    A model was asked to box the candidate all the same, and a judge to check it. It is known to be
    absent where the judge said that it isn't in the picture, and each of these boxes was dropped:
    both the check's verdict on it and the answer about a crop of it alone say that it isn't one of
    the candidate.
    """
    check = check_of(candidate)
    verdicts = verdicts_of(candidate)
    if not check or not verdicts:
        verification = candidate.get("verification")
        reason = verification.get("reason") if isinstance(verification, dict) else None
        return str(reason or "not checked")
    if presence_of(candidate).there is not False:
        return "it may be there"
    if any(verdict.get("decision") != "dropped" for verdict in verdicts.values()):
        return str(check.get("reason") or "the answers differ")
    return ""


def as_absent(candidate: Expression) -> Expression:
    """A candidate that is known to be absent, as an expression among the others."""
    kept = {name: value for name, value in candidate.items() if name != "rejected"}
    return {**kept, "char_span": None, "instances": [], "status": "none", "verified": True}
