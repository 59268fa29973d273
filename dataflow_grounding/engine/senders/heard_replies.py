"""The replies that were heard so far, by which one of a gateway's cache is known.

That is by a header of the reply, or by the id and time of a reply that had come a second or more
before this one was asked for (vllm-project/semantic-router issue 940): ids alone may be the
second's, or a worker's name.
"""

import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any, NamedTuple

from dataflow_grounding.serving.serving import Reply
from dataflow_grounding.tasks.request import Request

MOST_REMEMBERED = 4096  # replies: far more than come between two answers to one question
MOST_OFF = 86_400.0  # seconds by which an endpoint's clock may be wrong, or ours
EARLIER = 1.0  # seconds between a reply and a request that a cache answers with it, at least


class _Name(NamedTuple):
    """By which a reply is known again."""

    id: str
    created: int
    text: int  # its hash


class _First(NamedTuple):
    """When a reply came first, and about which pictures."""

    came_at: float  # by the process's clock
    pictures: list[str]  # their digests


class HeardReplies:
    """Knows the replies of a cache, by what was heard so far."""

    def __init__(self) -> None:
        self._first: OrderedDict[_Name, _First] = OrderedDict()  # of the last MOST_REMEMBERED
        self._gateway_marks_kept = False  # whether it says which replies come from its cache

    def marked(self, reply: Reply, request: Request[Any], sent_at: float) -> Reply:
        """Return a reply to a request that was sent then, marked as kept if a cache gave it."""
        name = _name_of(reply)
        first = self._first.get(name)
        if first is None:
            pictures = [image.sent_digest for image in request.images]
            self._first[name] = _First(time.monotonic(), pictures)
            if len(self._first) > MOST_REMEMBERED:
                self._first.popitem(last=False)
        if reply.kept:
            self._gateway_marks_kept = True
            return reply
        if first is None or self._gateway_marks_kept or first.came_at + EARLIER > sent_at:
            return reply
        # some servers give all replies one id, or one time
        can_tell = reply.id and abs(reply.created - time.time()) < MOST_OFF
        if not can_tell:
            return reply
        return replace(reply, kept=True)

    def is_of_another_picture(self, reply: Reply, request: Request[Any]) -> bool:
        """Return whether a kept reply came first as the answer about other pictures."""
        first = self._first.get(_name_of(reply)) if reply.id else None
        return first is not None and first.pictures != [each.sent_digest for each in request.images]


def _name_of(reply: Reply) -> _Name:
    return _Name(reply.id, reply.created, hash(reply.text))
