"""What no check has vouched for yet: `OpenReplies`.

A step's store keeps what checks have said of its replies (`engine/vouching.py`), so that a later
run knows which of them it may use.
"""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.engine.plan import SUSPECT, UNSEEN, Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.images.image import Image
from dataflow_grounding.trust.kinds import orientation_of
from dataflow_grounding.trust.known import Known

MOST_RECORDS = 5000  # that are remembered, so that memory is bounded without any check
# Replies of which no check can tell, after which they speak for themselves: boxes in another format
# have nearly always shown by then (`reply_judge.STOP_AT`).
ENOUGH = 200


class CheckStart(NamedTuple):
    """What there is when a check is sent: if it goes well, it vouches for all of this."""

    offset: int  # of the store's end
    answers: int  # how many there were
    records: list[Ask]


class OddRecord(NamedTuple):
    """A record with replies that look like another format twice."""

    ask: Ask
    image: Image


class OpenReplies:
    """What came since the last good check: replies, and the records, as `Ask`, that they are of."""

    def __init__(self, known: Known) -> None:
        # By their pictures' orientation. They are kept until a check has shown that pictures of
        # that orientation are answered as asked.
        self.odd_records: dict[str, list[OddRecord]] = {}
        self._known = known
        self._spoken = known.answers  # how many have spoken for themselves
        # Records by age, with whether this run has sent requests for any of their boxes. Otherwise
        # stored replies have answered them.
        self._open_records: dict[Ask, bool] = {}
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

    def add(self, ask: Ask, *, was_sent: bool) -> None:
        self._open_records[ask] = was_sent or self._open_records.get(ask, False)
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

    def add_odd(self, ask: Ask, image: Image) -> int:
        """Add a record that looks odd twice; return how many there are of this orientation."""
        alike = self.odd_records.setdefault(orientation_of(image.sent_size), [])
        alike.append(OddRecord(ask, image))
        return len(alike)

    def check_start(self) -> CheckStart:
        return CheckStart(self.vouching.here(), self._known.answers, list(self._open_records))

    def vouch(self, start: CheckStart, answered_by_orientation: Mapping[str, bool]) -> None:
        """Note a check that went well: it vouches for what there was at its start."""
        self._says_of_check = True
        self._known.vouched = start.answers
        self.vouching.good(start.offset)
        for ask in start.records:
            self._open_records.pop(ask, None)
            self._empty_records.pop(ask, None)
        for orientation, is_answered in answered_by_orientation.items():
            if is_answered:
                self.odd_records.pop(orientation, None)

    def leave(self, *, unanswered: bool) -> None:
        """Note a check that vouches for nothing, and condemns nothing."""
        self._says_of_check = True
        self.vouching.unclear(unanswered=unanswered)

    def let_speak(self) -> None:
        """Note, after every ENOUGH replies, that those so far speak for themselves."""
        if self._known.answers >= self._spoken + ENOUGH and not self.are_unseen:
            self._spoken = self._known.answers
            self.vouching.let_speak()

    def mark(self, message: str, *, sent_alone: bool) -> None:
        """Mark all open records as suspect, or, `sent_alone`, those for which this run has sent."""
        for ask, was_sent in self._open_records.items():
            if was_sent or not sent_alone:
                ask.note(SUSPECT, message)

    def finish(self, *, are_trusted: bool) -> bool:
        """End the run: mark odd records, and settle what the next run makes of open replies.

        - Not `are_trusted`, or without any check: open replies stay open.
        - They `are_unseen`: records without a box are marked, and replies stay open, so that the
          next run makes a check first. Returns True.
        - Otherwise open replies count as vouched for, unless there are odd records. Returns False.
        """
        for alike in self.odd_records.values():
            for odd in alike:
                odd.ask.note(SUSPECT, "two replies look like another format")
        has_unseen = are_trusted and self.are_unseen
        if has_unseen:
            for ask in self._empty_records:
                ask.note(UNSEEN)
        elif are_trusted and self._says_of_check and not self.odd_records:
            self.vouching.finished()
        elif are_trusted and self._says_of_check:
            # No check has shown that the odd ones are right, so open replies aren't vouched for:
            # the next run makes a check before it uses them. If this run's last check was
            # unanswered, they speak for themselves, even those of earlier runs: this run has read
            # them all.
            self.vouching.let_speak(all_read=True)
        self._known.returned = self._known.answers
        return has_unseen
