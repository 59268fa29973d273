"""Replies that were taken for right, and are judged once more when more is known.

How likely a reply is in another format depends on what the run's boxes look like, which becomes
known only as they come. So the last replies are kept, and reviewed at some points of the run.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.watch._evidence import LIKELIER, Evidence
from dataflow_grounding.watch._readings import JudgedReply
from dataflow_grounding.watch._watched_question import WatchedQuestion

LEARNT = (40, 200)  # numbers of replies at which the last ones are reviewed
MOST = 200  # replies that are remembered
AT_ONCE = 200  # boxes that are judged, some milliseconds, before other tasks have their turn
# A question that is asked again for comparison has its sample number raised by this, so that its
# reply is stored apart from those of the record's own samples.
AFRESH = 1_000_000


@dataclass(frozen=True, eq=False)
class TakenReply:
    """A reply that was judged, with what it takes to ask its question once more.

    Attributes:
        judged: The reply's boxes, as they were judged when it came.
        question: The question that it answered, as it is watched.
        ask: The means of the reply's record to send requests.
        request: The question as it is sent.
    """

    judged: JudgedReply
    question: WatchedQuestion
    ask: Ask
    request: Request[Any]

    def asked_afresh(self) -> Request[JudgedReply | None]:
        """Return the same question, to be asked once more; its reply is stored apart.

        Its answer is the reply as it is judged, None where that can't be read.
        """
        return replace(self.request, sample=self.request.sample + AFRESH, read=self._read_as_judged)

    def _read_as_judged(self, reply: str) -> ReadReply[JudgedReply | None]:
        """Return a reply to the question as it is judged, None if unreadable, and no notes."""
        return self.question.judged(reply), []


class TakenReplies:
    """The last replies that were taken for right, until they are reviewed."""

    def __init__(self) -> None:
        self._replies: deque[TakenReply] = deque(maxlen=MOST)
        self._reviews = list(LEARNT)
        self._called_for = False

    def add(self, reply: TakenReply) -> None:
        """Remember a reply; the oldest is forgotten where there are MOST."""
        self._replies.append(reply)

    def call_for_review(self) -> None:
        """Make a review due: a reply was proven to be in another format, so these may be, too."""
        self._called_for = True

    def is_due(self, replies: int) -> bool:
        """Whether a review is due once so many `replies` have come in the run.

        It is if it was called for, or at the first of LEARNT that no review has passed.
        """
        return self._called_for or (bool(self._reviews) and replies >= self._reviews[0])

    async def doubtful(self, evidence: Evidence, spare: int = 0) -> Sequence[TakenReply]:
        """Review the replies, and take out those that should be asked again by what is known now.

        The others are kept, with what they are judged now. Replies that come while this judges,
        some boxes at a time, are for the next review.

        Args:
            evidence: What the run's replies say by now.
            spare: How many to take out at the least, as far as there are any whose ratio is
                LIKELIER or more; the likeliest are added.

        Returns:
            The replies that were taken out, as they are judged now.
        """
        self._called_for = False
        self._reviews = [point for point in self._reviews if point > evidence.replies]
        replies = self._replies
        self._replies = deque(maxlen=MOST)
        doubtful: list[TakenReply] = []
        kept: list[TakenReply] = []
        judged_boxes = 0
        for reply in replies:
            if judged_boxes >= AT_ONCE:
                judged_boxes = 0
                await asyncio.sleep(0)
            judged_boxes += len(reply.judged.boxes)
            judged_anew = evidence.judge(reply.judged.boxes, reply.judged.sent)
            again = replace(reply, judged=judged_anew)
            if evidence.is_doubtful(judged_anew):
                doubtful.append(again)
            else:
                kept.append(again)
        kept.sort(key=lambda reply: reply.judged.ratio)  # the most doubtful last
        while kept and len(doubtful) < spare and kept[-1].judged.ratio >= LIKELIER:
            doubtful.append(kept.pop())
        self._replies = deque([*kept, *self._replies], maxlen=MOST)
        return doubtful
