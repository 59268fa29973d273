"""Looking at all records as the review page does, without a browser."""

from contextlib import suppress

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.review.queues import Reviewable
from dataflow_grounding.review.session import Session


def look_at_all(results: str) -> None:
    """Ask a review of results for every record and its small picture; a picture may be broken."""
    session = Session(Reviewable(results), "ann")
    session.next({"mode": "grid"})
    for index in range(len(session.reviewable.keys)):
        session.view(index)
        with suppress(RecordError):
            session.picture(index, "small")
