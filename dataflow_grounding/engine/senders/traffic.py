"""How the requests to one serving fare, and for how long a run waits for an answer."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from dataflow_grounding._util import errors
from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.serving.serving import Serving

FIRST_PAUSE = 0.5  # seconds before a request is tried again; each further pause is twice as long
LONGEST_PAUSE = 8.0  # seconds, unless the endpoint asks for more
LEAST_OF_PAUSE = 0.1  # what part of the pause is kept, however little the endpoint asks for
USUAL_WAIT = 600.0  # seconds without an answer, after which a run stops
LOOK_SECONDS = 0.25  # after which a request that waits looks whether the run has stopped


class Traffic:
    """How the requests to one serving fare: counts, the last answer, and what has stopped them."""

    def __init__(
        self,
        serving: Serving,
        options: RunOptions,
        stop: Callable[[errors.RunStopped], None] | None,
    ) -> None:
        self.max_attempts = options.max_attempts
        self.max_wait = longest_wait(options, serving)
        # Requests and tokens by what became of them: "sent", "answered", "replayed" (read from the
        # store), "probes" (checks), "rate_limited", "unreadable", "input_tokens", …
        self.counts: Counter[str] = Counter()
        self.stopped: errors.RunStopped | None = None
        # Called with what stops the run; it has to set `stopped`, by which `check_stopped` stops
        # the other requests. Without a run, it does nothing else.
        self._stop = stop or partial(setattr, self, "stopped")
        self.last_fault: errors.ServerFault | None = None  # since the last answer
        # by the process's clock:
        self.last_answer: float | None = None  # None before the first one
        self.worked_at = 0.0  # when the last request that was answered was sent; 0 for none
        self.in_flight = 0  # requests
        self.waiting_for_rate_limit = 0  # requests
        # what is just found out: nothing else is sent until it is
        self.questions = set[asyncio.Task[Any]]()
        self._refused_at: list[float] = []  # when requests were refused since the last answer

    def note_answer(self, sent_at: float) -> None:
        """Note an answer of the endpoint itself to a request that was sent then."""
        self.last_answer = time.monotonic()
        self.worked_at = max(self.worked_at, sent_at)
        self.last_fault = None

    def note_refusal(self) -> int:
        """Note a refusal; return how many there were in a row."""
        self._refused_at.append(time.monotonic())
        # an answer to an earlier request vouches for no later refusal
        self._refused_at = [at for at in self._refused_at if at > self.worked_at]
        return len(self._refused_at)

    def forget_refusals(self) -> None:
        self._refused_at.clear()

    async def questions_answered(self) -> None:
        """Wait until requests may be sent again."""
        while self.questions:
            await asyncio.wait(self.questions)  # those who have asked heed what it raises
        self.check_stopped()

    def check_stopped(self) -> None:
        if self.stopped is not None:
            # Without its traceback, which grows with each time that the error is raised: a service
            # raises it for days.
            raise self.stopped.with_traceback(None)

    def stop(self, why: errors.RunStopped) -> None:
        self._stop(why)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop the run if the block raises RunStopped."""
        try:
            yield
        except errors.RunStopped as why:
            self._stop(why)
            raise

    async def pause(self, asked_for: float | None, number: int) -> None:
        """Wait longer each time, from `number` 1 on; or as long as is `asked_for`."""
        doublings = min(number - 1, 10)  # more make a number too large for a float at last
        seconds = min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE)
        if asked_for is not None:
            seconds = max(asked_for, seconds * LEAST_OF_PAUSE)  # but not much less than usual
        # longer by lot, so that those that wait don't all come back at once
        until = time.monotonic() + seconds * random.uniform(1.0, 1.25)
        while True:
            self.check_stopped()
            left = until - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, LOOK_SECONDS))

    async def aclose(self) -> None:
        for question in self.questions:
            question.cancel()
        if self.questions:
            await asyncio.wait(self.questions)


def longest_wait(options: RunOptions, serving: Serving) -> float:
    """Return the seconds without an answer after which a run stops."""
    if options.max_wait is not None:
        return options.max_wait
    # a slow answer is paid for, and no outage
    slowest = serving.timeout if serving.timeout < math.inf else 0.0
    return max(USUAL_WAIT, 2 * slowest)


def tell_of_short_wait(options: RunOptions, serving: Serving) -> None:
    """Say at the start that an answer may take longer than the run waits."""
    wait = options.max_wait
    if wait is not None and wait < serving.timeout < math.inf:
        say(
            f"Note: {setting('workflow.max_wait', f'{wait:g}')} is less than the timeout of a"
            f" request ({serving.timeout:g} s): an answer that takes longer stops the run."
        )


def seconds_asked(error: errors.GroundingError) -> float | None:
    """Return the seconds that an endpoint asks to wait; None where its error names none."""
    seconds: float | None = getattr(error, "retry_after", None)
    return seconds
