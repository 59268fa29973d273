"""Candidates for negatives, phrases that may not be in their picture: made, then kept or not.

Nothing is asked here.
"""

import hashlib
import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.data.records import NEGATIVE, Record
from dataflow_grounding.operators._box_decisions import free_ids
from dataflow_grounding.tasks.negatives import Changed

COLUMN = "negative_candidates"
"""Phrases that were made up and aren't, or not yet, known to be absent."""

OTHER_IMAGE = "other_image"


def candidates_of(
    record: Record,
    own_expressions: Sequence[Expression],
    changed: Sequence[Changed],
    texts_of_other_images: Sequence[str],
) -> list[Expression]:
    """Return the candidates as expressions without boxes."""
    by_change = _by_change(own_expressions, changed, texts_of_other_images)
    # The kinds of change take turns, because only the first candidates are kept.
    candidates: list[Expression] = []
    for one_of_each in itertools.zip_longest(*by_change.values()):  # None after a list's end
        candidates += [candidate for candidate in one_of_each if candidate is not None]
    taken_ids = {expression.expression_id for expression in own_expressions}
    ids = free_ids(f"{record.unique_id}#n", taken_ids)  # without end
    for free_id, candidate in zip(ids, candidates, strict=False):
        candidate.expression_id = free_id
    return candidates


def _by_change(
    own_expressions: Sequence[Expression],
    changed: Sequence[Changed],
    texts_of_other_images: Sequence[str],
) -> dict[str, list[Expression]]:
    """Return the candidates, without ids, by their change."""
    by_change: dict[str, list[Expression]] = {}
    for place, change, text in changed:
        from_id = own_expressions[place].expression_id
        candidate = _candidate(text, change, changed_from=from_id)
        by_change.setdefault(change, []).append(candidate)
    keys_of_changed = {class_key(answer.text) for answer in changed}
    for text in texts_of_other_images:
        if class_key(text) not in keys_of_changed:  # else it is a candidate already
            by_change.setdefault(OTHER_IMAGE, []).append(_candidate(text, OTHER_IMAGE))
    return by_change


def _candidate(text: str, change: str, changed_from: str | None = None) -> Expression:
    return Expression(
        text, source=NEGATIVE, change=change, changed_from=changed_from, status="none"
    )


def without_named(image_texts: Collection[str], changed: Sequence[Changed]) -> list[Changed]:
    """Return the changed phrases without those that occur in a text about the image."""
    # What its caption names is there, though nobody boxed it.
    text_keys = [class_key(text) for text in image_texts]
    return [answer for answer in changed if not _occurs_in(text_keys, class_key(answer.text))]


def _occurs_in(text_keys: Collection[str], key: str) -> bool:
    return any(key in text_key for text_key in text_keys)


def of_other_images(
    record: Record, phrases: Sequence[str], count: int, image_texts: Collection[str]
) -> list[str]:
    """Return up to `count` of the phrases that occur in no text about the record's image."""
    text_keys = [class_key(text) for text in image_texts]
    ranked = []
    for phrase in phrases:
        key = class_key(phrase)
        if not _occurs_in(text_keys, key):
            # As if at random, but the same ones in any order of the phrases.
            digest = hashlib.sha256(f"{record.unique_id}\0{key}".encode()).digest()
            ranked.append((digest, phrase))
    return [phrase for _, phrase in sorted(ranked)[:count]]


def is_absent(negative: Expression) -> bool:
    """Whether a judge's check says that a negative is not in the picture."""
    return negative.verified is True and not negative.instances


def with_reason(negative: Expression) -> Expression:
    """Return a negative that is left out, with the `reason` why."""
    verification = negative.verification
    reason = "it may be there"
    if verification is None or verification.boxes is None:  # it wasn't judged
        reason = (verification and verification.reason) or "not checked"
    return replace(negative, reason=reason)


def candidates_in(record: Record, column: str) -> list[object]:
    candidates = record.get(column)
    return list(candidates) if isinstance(candidates, list) else []
