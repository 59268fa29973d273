"""What no check has vouched for yet: `OpenReplies`.

A step's store keeps what checks have said of its replies (`engine/vouching.py`), so that a later
run knows which of them it may use.
"""

from typing import NamedTuple

from dataflow_grounding.engine.plan import SUSPECT, UNSEEN, Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.trust.known import Known

MOST_RECORDS = 5000  # that are remembered, so that memory is bounded without any check


class CheckStart(NamedTuple):
    """What there is when a check is sent: if it goes well, it vouches for all of this."""

    offset: int  # of the store's end
    answers: int  # how many there were
    records: list[Ask]


class OpenReplies:
    """What came since the last good check: replies, and the records, as `Ask`, that they are of."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._open_records: dict[Ask, None] = {}  # records for which this run has sent, by age
        self._empty_records: dict[Ask, None] = {}  # records with a reply without any box, by age
        self._vouching: Vouching | None = None  # from the first record on
        self._says_of_check = False  # whether the store says what a check of this run showed

    @property
    def has_begun(self) -> bool:
        return self._vouching is not None

    @property
    def vouching(self) -> Vouching:
        assert self._vouching is not None
        return self._vouching

    def begin(self, vouching: Vouching) -> None:
        self._vouching = vouching

    @property
    def are_unseen(self) -> bool:
        """Whether replies without a box say nothing: an endpoint finds no rectangle, either."""
        return bool(self._known.blind and self._empty_records)

    def add(self, ask: Ask) -> None:
        """Add a record with a reply that this run has sent for."""
        self._open_records[ask] = None
        if len(self._open_records) > MOST_RECORDS:
            oldest = next(iter(self._open_records))
            del self._open_records[oldest]

    def add_empty(self, ask: Ask) -> None:
        """Add a record with a reply that has no box."""
        self._empty_records[ask] = None
        if len(self._empty_records) > MOST_RECORDS:
            oldest = next(iter(self._empty_records))
            if self.are_unseen:  # it would be marked at the end, but is forgotten now
                oldest.note(UNSEEN)
            del self._empty_records[oldest]

    def check_start(self) -> CheckStart:
        return CheckStart(self.vouching.here(), self._known.answers, list(self._open_records))

    def vouch(self, start: CheckStart) -> None:
        """Note a check that went well: it vouches for what there was at its start."""
        self._says_of_check = True
        self._known.vouched = start.answers
        self.vouching.good(start.offset)
        for ask in start.records:
            self._open_records.pop(ask, None)
            self._empty_records.pop(ask, None)

    def leave(self) -> None:
        """Note a check that vouches for nothing, and condemns nothing."""
        self._says_of_check = True
        self.vouching.unclear()

    def mark(self, message: str) -> None:
        """Mark all open records as suspect. Stored replies are marked as they are read."""
        for ask in self._open_records:
            ask.note(SUSPECT, message)

    def finish(self, *, are_trusted: bool) -> bool:
        """End the run, and settle what the next run makes of open replies.

        - Not `are_trusted`, or without any check: open replies stay open.
        - They `are_unseen`: records without a box are marked, and replies stay open, so that the
          next run makes a check first. Returns True.
        - Otherwise open replies count as vouched for. Returns False.
        """
        has_unseen = are_trusted and self.are_unseen
        if has_unseen:
            for ask in self._empty_records:
                ask.note(UNSEEN)
        elif are_trusted and self._says_of_check:
            self.vouching.finished()
        self._known.returned = self._known.answers
        return has_unseen
