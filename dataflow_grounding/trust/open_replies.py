"""What no check has vouched for yet: `OpenReplies`.

A check asks about probe pictures, which have rectangles at known places. One that is answered as
asked vouches for the replies before it. A step's store keeps what checks have said of its replies
(`engine/vouching.py`), so that a later run knows which of them it may use.
"""

from collections.abc import Mapping
from typing import NamedTuple

from dataflow_grounding.engine.plan import SUSPECT, UNSEEN, Ask
from dataflow_grounding.engine.vouching import Vouching
from dataflow_grounding.images.image import Image
from dataflow_grounding.trust.kinds import orientation_of
from dataflow_grounding.trust.known import Answers

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

    def __init__(self, answers: Answers) -> None:
        # By their pictures' orientation. They are kept until a check has shown that pictures of
        # that orientation are answered as asked.
        self.odd_records: dict[str, list[OddRecord]] = {}
        self.count_set_aside = 0  # replies that `set_aside` has taken out
        self._answers = answers
        self._spoken = answers.count  # how many have spoken for themselves
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

    def add(self, ask: Ask, *, was_sent: bool) -> None:
        self._open_records[ask] = was_sent or self._open_records.get(ask, False)
        if len(self._open_records) > MOST_RECORDS:
            oldest = next(iter(self._open_records))
            del self._open_records[oldest]

    def add_empty(self, ask: Ask, *, is_blind: bool) -> None:
        """Add a record with a reply that has no box. At most MOST_RECORDS are remembered.

        `is_blind` says whether an endpoint finds no rectangle in probe pictures, either. Then the
        records would be marked at the end: the oldest is marked now, before it is forgotten.
        """
        self._empty_records[ask] = None
        if len(self._empty_records) > MOST_RECORDS:
            oldest = next(iter(self._empty_records))
            del self._empty_records[oldest]
            if is_blind:
                oldest.note(UNSEEN)

    def add_odd(self, ask: Ask, image: Image) -> int:
        """Add a record with replies that look odd twice; return how many there are about pictures
        of this orientation.
        """
        alike = self.odd_records.setdefault(orientation_of(image.sent_size), [])
        alike.append(OddRecord(ask, image))
        return len(alike)

    def check_start(self) -> CheckStart:
        return CheckStart(self.vouching.here(), self._answers.count, list(self._open_records))

    def vouch(self, start: CheckStart, answered_by_orientation: Mapping[str, bool]) -> None:
        """Note a check that went well: it vouches for what there was at its start."""
        self._says_of_check = True
        self._answers.vouched = start.answers
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

    def let_speak(self, *, is_blind: bool) -> None:
        """Note, after every ENOUGH replies, that those so far speak for themselves.

        They don't if one has no box and an endpoint `is_blind`: it may not have seen its picture.
        """
        are_unseen = is_blind and bool(self._empty_records)
        if self._answers.count >= self._spoken + ENOUGH and not are_unseen:
            self._spoken = self._answers.count
            self.vouching.let_speak()

    def set_aside(self) -> None:
        """Have the next run ask again for all that is open."""
        self.count_set_aside = self.vouching.bad()

    def mark(self, message: str, *, sent_alone: bool) -> None:
        """Mark all open records as suspect, or, `sent_alone`, those for which this run has sent."""
        for ask, was_sent in self._open_records.items():
            if was_sent or not sent_alone:
                ask.note(SUSPECT, message)

    def finish(self, *, are_trusted: bool, is_blind: bool) -> bool:
        """End the run: mark odd records, and settle what the next run makes of open replies.

        - Not `are_trusted`, or without any check: open replies stay open.
        - An endpoint `is_blind`, and a reply has no box: such records are marked as unseen, and
          replies stay open, so that the next run makes a check first. Returns True.
        - Otherwise open replies count as vouched for, unless there are odd records. Returns False.
        """
        for alike in self.odd_records.values():
            for odd in alike:
                odd.ask.note(SUSPECT, "two replies look like another format")
        has_unseen = are_trusted and is_blind and bool(self._empty_records)
        if has_unseen:
            for ask in self._empty_records:
                ask.note(UNSEEN)
        elif are_trusted and self._says_of_check:
            self._vouch_at_the_end()
        self._answers.returned = self._answers.count
        return has_unseen

    def _vouch_at_the_end(self) -> None:
        if not self.odd_records:
            self.vouching.finished()
            return
        # No check has shown that the odd ones are right, so open replies aren't vouched for: the
        # next run makes a check before it uses them. If this run's last check was unanswered, they
        # speak for themselves, even those of earlier runs: this run has read them all.
        self.vouching.let_speak(all_read=True)
