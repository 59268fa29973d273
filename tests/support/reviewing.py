"""Looking at all records as the review page does, without a browser."""

import json
from contextlib import suppress
from typing import NamedTuple

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
                text = phrases.rows[item.id]["text"]
                found.append(Asked(index, item.id, item.box, text, letter, doubts[number]))
    return found


def left(session: Session) -> list[Asked]:
    """Return what nobody has decided."""
    return [item for item in items(session) if item.letter == "-"]


def most_doubtful(results: str) -> list[Asked]:
    """Return the items of results, those first that are to be looked at first."""
    return sorted(items(Session(Reviewable(results), "ann")), key=lambda item: -item.doubt)
