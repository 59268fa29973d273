"""Candidates for negatives, phrases that may not be in their picture: made, then kept or not.

Nothing is asked here.
"""

import hashlib
import itertools
from collections.abc import Collection, Sequence
from typing import Any

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import NEGATIVE, Record
from dataflow_grounding.operators._box_decisions import (
    Expression,
    check_of,
    presence_of,
    verdicts_of,
)
from dataflow_grounding.operators._box_groups import WHOLE
from dataflow_grounding.operators._expressions import with_bbox_ids
from dataflow_grounding.tasks.negatives import Changed

COLUMN = "negative_candidates"
"""Phrases that were made up and aren't, or not yet, known to be absent."""

OTHER_IMAGE = "other_image"
"""The `change` of a candidate that is a phrase of another image."""


def candidates_of(
    record: Record,
    own: Sequence[Expression],
    changed: Sequence[Changed],
    others: Sequence[str],
    size: Size,
) -> list[Expression]:
    """Return the candidates as expressions, the kinds of change taking turns.

    Each has one box, that of the whole picture, in which a judge is to look for it.

    The first of each kind come first, then the second of each, and so on, so that the first few are
    of all kinds. Their ids are `{record's id}#n{number}`, without those that are taken.

    Args:
        record: Their record.
        own: Its expressions; the places of the changed ones are those in here.
        changed: What they were changed to.
        others: Phrases of other images; one that a change has made, too, is left out.
        size: The picture's width and height.
    """
    by_change: dict[str, list[dict[str, Any]]] = {}
    for place, change, text in changed:
        from_id = own[place]["expression_id"]
        fields = {"text": text, "change": change, "changed_from": from_id}
        by_change.setdefault(change, []).append(fields)
    made_keys = {class_key(answer.text) for answer in changed}
    for text in others:
        if class_key(text) not in made_keys:
            fields = {"text": text, "change": OTHER_IMAGE}
            by_change.setdefault(OTHER_IMAGE, []).append(fields)
    in_turn = []
    for one_of_each in itertools.zip_longest(*by_change.values()):
        in_turn += [fields for fields in one_of_each if fields is not None]
    taken_ids = {expression["expression_id"] for expression in own}
    number = 0
    candidates = []
    for fields in in_turn:
        while f"{record.unique_id}#n{number}" in taken_ids:
            number += 1
        own_id = f"{record.unique_id}#n{number}"
        taken_ids.add(own_id)
        candidate: Expression = {"expression_id": own_id, "source": NEGATIVE, **fields}
        whole = {"bbox": [0, 0, *size], WHOLE: True}
        candidates.append({**candidate, "instances": with_bbox_ids(candidate, [whole])})
    return candidates


def without_named(told: Collection[str], changed: Sequence[Changed]) -> list[Changed]:
    """Return the changed phrases without those that occur in a text about the image.

    What its caption names is there, though nobody boxed it.

    Args:
        told: Texts about the image: its phrases, its regions' types, its caption.
        changed: The changed phrases.
    """
    told_keys = [class_key(text) for text in told]
    return [answer for answer in changed if not _occurs_in(told_keys, class_key(answer.text))]


def _occurs_in(told_keys: Collection[str], key: str) -> bool:
    return any(key in told_key for told_key in told_keys)


def of_other_images(
    record: Record, phrases: Sequence[str], count: int, told: Collection[str]
) -> list[str]:
    """Return up to `count` of the phrases, chosen as if at random, but always alike for a record.

    Those are chosen whose digest with the record's id is the least. So most records keep theirs
    where phrases are added later.

    Args:
        record: The record.
        phrases: The phrases of all images.
        count: How many are wanted; there may be fewer.
        told: Texts about the image: a phrase that occurs in one isn't taken.
    """
    told_keys = [class_key(text) for text in told]
    ranked = []
    for phrase in phrases:
        key = class_key(phrase)
        if not _occurs_in(told_keys, key):
            digest = hashlib.sha256(f"{record.unique_id}\0{key}".encode()).digest()
            ranked.append((digest, phrase))
    return [phrase for _, phrase in sorted(ranked)[:count]]


def why_kept_out(candidate: Expression) -> str:
    """Return why a candidate can't be taken as a negative; "" where it is known to be absent.

    It is known to be absent where the judge said that it isn't in the picture, and each of its
    boxes, which mostly is the whole picture's, was dropped: the verdict says that the candidate
    isn't there.
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
    """Return a candidate that is known to be absent as an expression for the record.

    It has `status` "none", `verified` True and no instances; `rejected` is left out.
    """
    kept = {name: value for name, value in candidate.items() if name != "rejected"}
    return {**kept, "char_span": None, "instances": [], "status": "none", "verified": True}
