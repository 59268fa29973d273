"""Looking at all records as the review page does, without a browser."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.review._index import items_of
from dataflow_grounding.review._record_view import phrases_of
from dataflow_grounding.review.reviewable import Place, Reviewable
from dataflow_grounding.review.session import Session


def look_at_all(results: str) -> None:
    """Ask a review of results for every record and its small picture; a picture may be broken."""
    session = Session(Reviewable(results), "ann")
    session.index()
    for index in range(len(session.reviewable.keys)):
        session.view(index)
        with suppress(RecordError):
            session.picture(index, "small")


class Asked(NamedTuple):
    """An item of a review, and the letter of what is decided of it."""

    record: int
    id: str
    box: int | None
    text: str
    letter: str
    doubt: int


def items(session: Session) -> list[Asked]:
    """Return what a session's page asks for."""
    reviewable = session.reviewable
    decided = reviewable.decided(session.who)
    found = []
    for index in range(len(reviewable.keys)):
        phrases = phrases_of(reviewable.record(index))
        *_, doubts = json.loads(reviewable.rows[index])
        for number, item in enumerate(items_of(phrases)):
            if session.sample is None or Place(index, item) in session.sample:
                letter = decided[index][number] if index in decided else "-"
                text = phrases.rows[item.id].text
                found.append(Asked(index, item.id, item.box, text, letter, doubts[number]))
    return found


def left(session: Session) -> list[Asked]:
    """Return what nobody has decided."""
    return [item for item in items(session) if item.letter == "-"]


def most_doubtful(results: str) -> list[Asked]:
    """Return the items of results, those first that are to be looked at first."""
    return sorted(items(Session(Reviewable(results), "ann")), key=lambda item: -item.doubt)


def asked_for(view: dict[str, Any], id: str, after: dict[str, Any] | None) -> dict[str, Any]:
    """What a page sends to make an expression of a record what `after` says.

    `after` has `instances`, each with `bbox`, `verified` and `from`, its index now; None deletes the
    expression. It may have `text` and `char_span`, and `verified` if it has no boxes.
    """
    now = next(row for row in view["expressions"] if row["id"] == id)
    return {
        "acts": [{"id": id, **act} for act in _acts(now, after)],
        "versions": {id: now["version"]},
    }


def _acts(now: dict[str, Any], after: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if after is None:
        yield {"gone": True}
        return
    if "text" in after:
        yield {"text": after["text"], "char_span": after.get("char_span")}
    boxes = after["instances"]
    if not boxes and after.get("verified") is True:
        yield {"absent": True}
        return
    kept = [box.get("from") for box in boxes]
    for index, box in enumerate(now["instances"]):
        if index not in kept:
            yield {"box": box["bbox"], "gone": True}
    for box in boxes:
        verified = box.get("verified")
        old = None if box.get("from") is None else now["instances"][box["from"]]["bbox"]
        if old is None:
            yield {"new": box["bbox"], "right": True}
        elif box["bbox"] != old:
            right = None if box.get("unjudged") else True
            yield {"box": old, "corners": box["bbox"], "right": right}
        elif verified is not None:
            yield {"box": old, "right": verified}
    if not boxes and "verified" in after and not now["instances"]:
        yield {"right": after["verified"]}
