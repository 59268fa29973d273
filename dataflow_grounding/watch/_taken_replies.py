"""Replies that were taken for right, and are judged once more when more is known."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.tasks.request import ReadReply, Request
from dataflow_grounding.watch._evidence import LIKELIER, Evidence
from dataflow_grounding.watch._second_reply import JudgedReply
from dataflow_grounding.watch._watched_question import WatchedQuestion

LEARNT = (40, 200)  # replies after which it is better known what a run's boxes look like
MOST = 200  # replies that are remembered
AT_ONCE = 200  # boxes that are judged, some milliseconds, before others have their turn
AFRESH = 1_000_000  # the number of a sample that is asked for to compare it with an earlier reply


@dataclass(frozen=True, eq=False)
class TakenReply:
    """A reply that nothing spoke against.

    Attributes:
        judged: What it said, as it was judged then.
        question: What it answered.
        ask: Of the record that it is about.
        request: The same as it is sent.
    """

    judged: JudgedReply
    question: WatchedQuestion
    ask: Ask
    request: Request[Any]

    def asked_afresh(self) -> Request[JudgedReply | None]:
        """The same question, whose answer is kept apart from the record's own."""

        def read(reply: str) -> ReadReply[JudgedReply | None]:
            return self.question.judged(reply), []

        return replace(self.request, sample=self.request.sample + AFRESH, read=read)


class TakenReplies:
    """The last of them, until more is known."""

    def __init__(self) -> None:
        self._replies: deque[TakenReply] = deque(maxlen=MOST)
        self._reviews = list(LEARNT)
        self._called_for = False

    def add(self, reply: TakenReply) -> None:
        """Remember one."""
        self._replies.append(reply)

    def call_for_review(self) -> None:
        """Another reply was proven to be in another format: these may be, too."""
        self._called_for = True

    def is_due(self, replies: int) -> bool:
        """Whether they should be judged once more, after so many `replies`."""
        return self._called_for or (bool(self._reviews) and replies >= self._reviews[0])

    async def doubtful(self, evidence: Evidence, spare: int = 0) -> Sequence[TakenReply]:
        """The replies that, by what is known now, should have been asked again.

        Where these are fewer than `spare`, the next likeliest are added. They are taken no longer.
        Replies that come while it judges, some boxes at a time, are for the next review.
        """
        self._called_for = False
        self._reviews = [point for point in self._reviews if point > evidence.replies]
        replies = self._replies
        self._replies = deque(maxlen=MOST)
        doubtful: list[TakenReply] = []
        likely: list[TakenReply] = []
        judged_boxes = 0
        for reply in replies:
            if judged_boxes >= AT_ONCE:
                judged_boxes = 0
                await asyncio.sleep(0)
            judged_boxes += len(reply.judged.boxes)
            again = replace(reply, judged=evidence.judge(reply.judged.boxes, reply.judged.sent))
            if evidence.is_doubtful(again.judged):
                doubtful.append(again)
            else:
                likely.append(again)
        likely.sort(key=lambda reply: reply.judged.ratio)
        while likely and len(doubtful) < spare and likely[-1].judged.ratio >= LIKELIER:
            doubtful.append(likely.pop())
        self._replies = deque([*likely, *self._replies], maxlen=MOST)
        return doubtful
