"""What is known of an endpoint, model and format: `Known`.

A run has its own. Records in memory share one for the whole process, so that each call doesn't
check the same endpoint again.
"""

import asyncio
import copy
import math
import os
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

from dataflow_grounding._util.errors import concerns_all
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.kinds import AT_THE_END
from dataflow_grounding.trust.reply_judge import ReplyJudge

if TYPE_CHECKING:
    from dataflow_grounding.trust.probing import Probing

# Seconds for which a check holds for further calls in this process. A script calls every few
# seconds, and a check with each of its calls would double what they cost.
FRESH = 600.0

PictureKind: TypeAlias = "tuple[tuple[str, int] | Size, str]"
"""The kind of a picture's size, or its frame, and its media type."""


class Pace:
    """How many requests were sent, and at how many the next check is due.

    Attributes:
        sent: Requests so far, in all.
        unchecked: Requests since the last check.
        next_check: The number of requests at which a check is due; 0 before the first one.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.unchecked = 0
        self.next_check = 0
        self._stretch_end = 0  # of requests, in each of which is a check

    def checking(self, every: int) -> None:
        """Note that a check is made; plan the next one, `every` requests apart on average."""
        self.unchecked = 0
        if self.sent < self.next_check:
            return
        begin = max(self._stretch_end, self.sent - self.sent % every)
        # A check has just told of the first few requests.
        first = min(AT_THE_END, every // 2) + 1
        self.next_check = begin + random.SystemRandom().randint(first, every)
        self._stretch_end = begin + every


class Answers:
    """How many answers there were: in all, when the last good check began, and returned by calls.

    Attributes:
        count, vouched, returned: These numbers.
    """

    def __init__(self) -> None:
        self.count = 0
        self.vouched = 0
        self.returned = 0


class Turns:
    """Lets the runs of this process, which are in different threads, make checks one by one."""

    def __init__(self) -> None:
        self._under_way: Future[BaseException | None] | None = None
        self._lock = threading.Lock()

    @asynccontextmanager
    async def mine(self) -> AsyncIterator[None]:
        """Enter once no other run makes a check, and keep others from it.

        Whoever enters should look again whether a check is due: another run's may have been good
        for this one. Raises what another run's check raised meanwhile, if it concerns all that ask
        the endpoint.
        """
        mine: Future[BaseException | None] = Future()
        while True:
            with self._lock:
                others = self._under_way
                if others is None:
                    self._under_way = mine
                    break
            # shielded: the waiting run may be cancelled, but the check is another's
            failed = await asyncio.shield(asyncio.wrap_future(others))
            if failed is not None:
                raise copy.copy(failed)
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            with self._lock:
                self._under_way = None
            mine.set_result(error if error is not None and concerns_all(error) else None)


class Known:
    """What is known of an endpoint, model and format.

    Attributes:
        judge: What judges replies, and has learnt from them.
        probing: What probe pictures have shown so far; None before the first check.
        pace: When checks are due.
        answers: How many answers there were.
        turns: Whose turn it is to make a check.
        checked_at: When the last check ended, by the monotonic clock, in seconds.
        kinds: The kinds of pictures that were checked.
        checks: Pictures that were sent for checks, without those that confirm a miss.
        unanswered: Checks in a row that told nothing.
        silent: Orientations of which the last probe picture went unanswered.
    """

    def __init__(self, asked: BoxFormat) -> None:
        self.judge = ReplyJudge(asked)
        self.probing: Probing | None = None  # NumPy is loaded with it
        self.pace = Pace()
        self.answers = Answers()
        self.turns = Turns()
        self.checked_at = -math.inf
        self.kinds: set[PictureKind] = set()
        self.checks = 0
        self.unanswered = 0
        self.silent: set[str] = set()
        self._missed: str | None = None  # what was warned of last, where a call went on
        self._missed_at = -math.inf

    @property
    def is_fresh(self) -> bool:
        """Whether a check was made less than FRESH ago, and so still holds."""
        return time.monotonic() - self.checked_at < FRESH

    def miss(self, message: str | None) -> None:
        """Remember that a call warned of boxes in another format, and goes on; None forgets it."""
        self._missed = message
        self._missed_at = time.monotonic()

    @property
    def lately_missed(self) -> str | None:
        """What a call warned of less than FRESH ago; None where a later check went well."""
        return self._missed if time.monotonic() - self._missed_at < FRESH else None

    def forget_format(self) -> None:
        """Forget what is known of the format, as boxes come in another one."""
        self.checked_at = -math.inf
        self.probing = None
        self.judge = ReplyJudge(self.judge.asked.format)


_known: dict[str, Known] = {}
"""For records in memory: what is known of the endpoints that were asked in this process."""


def _forget_checks_under_way() -> None:
    for known in list(_known.values()):
        known.turns = Turns()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_checks_under_way)


def known_in_process(serving: Serving, name: str, asked: BoxFormat) -> Known:
    """Return what this process knows of a serving, by the name of its endpoint, model and format.

    Objects of a user's class that states only its model's name may ask different servers: what is
    known of one object is not used for another.
    """
    if asked.maps:  # further frames are further formats to this process
        name += f" {hash(asked.maps)}"
    says_more = type(serving).identity is not Serving.identity
    if not says_more and serving.endpoint == Serving.endpoint:
        name = f"{name} {id(serving)}"
        if name not in _known:
            # an object that is gone leaves its id to others
            weakref.finalize(serving, _known.pop, name, None)
    return _known.setdefault(name, Known(asked))
