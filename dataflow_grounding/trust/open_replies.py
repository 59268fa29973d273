"""What no check has vouched for yet: `OpenReplies`.

The log of replies keeps what checks have said of them (`engine/reply_log.py`), so that a later run
knows which of them it may use.
"""

from typing import NamedTuple

from dataflow_grounding.engine.plan import SUSPECT, UNSEEN, Ask
from dataflow_grounding.engine.reply_log import Marks
from dataflow_grounding.trust.known import Known

MOST_RECORDS = 5000  # that are remembered, so that memory is bounded without any check


class CheckStart(NamedTuple):
    """What there is when a check is sent: if it goes well, it vouches for all of this."""

    replies: int  # of the group in the log
    answers: int  # how many there were
    records: list[Ask]


class OpenReplies:
    """What came since the last good check: replies, and the records, as `Ask`, that they are of."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._open_records: dict[Ask, None] = {}  # records for which this run has sent, by age
        self._empty_records: dict[Ask, None] = {}  # records with a reply without any box, by age
        self._marks: Marks | None = None  # from the first record on
        self._has_gone_well = False  # whether a check of this run has

    @property
    def has_begun(self) -> bool:
        return self._marks is not None

    @property
    def marks(self) -> Marks:
        assert self._marks is not None
        return self._marks

    def begin(self, marks: Marks) -> None:
        self._marks = marks

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
        return CheckStart(self.marks.here(), self._known.answers, list(self._open_records))

    def vouch(self, start: CheckStart) -> None:
        """Note a check that went well: it vouches for what there was at its start."""
        self._has_gone_well = True
        self._known.vouched = start.answers
        self.marks.good(start.replies)
        for ask in start.records:
            self._open_records.pop(ask, None)
            self._empty_records.pop(ask, None)

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
        elif are_trusted and self._has_gone_well:
            self.marks.good(self.marks.here())
        self._known.returned = self._known.answers
        return has_unseen
