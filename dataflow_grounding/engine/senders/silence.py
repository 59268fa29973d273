"""One clock for outages: the last good answer. Without one, a run says so, and stops at last.

A refusal is an answer, too; a plain question's answer isn't one, because a record's may fail all
the same.
"""

import asyncio
import time

from dataflow_grounding._util import errors
from dataflow_grounding._util.terminal import say
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.engine.senders.sender import Asked, Sender
from dataflow_grounding.engine.senders.traffic import Traffic
from dataflow_grounding.serving.serving import Reply

SAID_AFTER = 20.0  # seconds without an answer, after which that is said


class Silence:
    """Watches for how long requests have waited without any answer.

    After `max_wait` it cancels what is in flight, and stops the run, also within a request's
    timeout.
    """

    def __init__(self, sender: Sender, traffic: Traffic) -> None:
        self._next = sender
        self._traffic = traffic
        self._since = 0.0  # the last answer, or when the first of those that wait now came
        self._waiting: set[asyncio.Task[object]] = set()
        self._given_up: set[asyncio.Task[object]] = set()  # of these, those that were cancelled
        self._timer: asyncio.TimerHandle | None = None
        self._has_said = False  # since the last answer
        self._has_said_of_waiting = False  # that an answer is slow: once in a run

    async def send(self, asked: Asked) -> Reply:
        task = asyncio.current_task()
        assert task is not None
        if not self._waiting:
            self._since = time.monotonic()
            if self._timer is None:
                self._look_later()
        self._waiting.add(task)
        try:
            reply = await self._next.send(asked)
            self._note_answer()
            return reply
        except errors.RequestRefused:
            self._note_answer()
            raise
        except asyncio.CancelledError:
            stopped = self._traffic.stopped
            if task not in self._given_up or stopped is None:
                raise
            if hasattr(task, "uncancel"):  # from Python 3.11 on
                task.uncancel()
            raise stopped.with_traceback(None) from None
        finally:
            self._waiting.discard(task)
            self._given_up.discard(task)

    def _note_answer(self) -> None:
        self._since = time.monotonic()
        self._has_said = False

    @property
    def seconds(self) -> float:
        """For how long requests have waited without an answer."""
        return time.monotonic() - self._since if self._waiting else 0.0

    def __str__(self) -> str:
        """Return it in words: `no answer for 42 s: 503: upstream down`; "" while it is short."""
        seconds = self.seconds
        if seconds < SAID_AFTER:
            return ""
        return f"no answer for {duration(seconds)}{self._why()}"

    def _why(self) -> str:
        fault = self._traffic.last_fault
        if fault is None:
            return ""
        # of "http://host:8000/v1 answered 503: upstream down", what comes after "answered"
        words = str(fault).rpartition(" answered ")[2]
        return f": {words:.100}"

    def _look_later(self) -> None:
        said_after = SAID_AFTER if not self._has_said else self._traffic.max_wait
        at = self._since + min(said_after, self._traffic.max_wait)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.05, at - time.monotonic()), self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting or self._traffic.stopped is not None:
            return
        seconds = self.seconds
        if seconds >= self._traffic.max_wait:
            self._give_up(seconds)
            return
        if seconds >= SAID_AFTER and not self._has_said:
            self._has_said = True
            self._say(seconds)
        self._look_later()

    def _say(self, seconds: float) -> None:
        if self._traffic.last_fault is None:
            if self._has_said_of_waiting:
                return
            self._has_said_of_waiting = True
        most = duration(self._traffic.max_wait)
        why = self._why() or ": the endpoint is slow, or hangs"
        say(f"Note: no answer for {duration(seconds)}{why.rstrip('.')}. The run waits for {most}.")

    def _give_up(self, seconds: float) -> None:
        fault = self._traffic.last_fault
        why: errors.RunStopped
        if isinstance(fault, errors.RateLimited):
            why = errors.QuotaUsedUp(
                f"{fault}. No answer came for {duration(seconds)}: come back later"
            )
        else:
            reason = "requests hang" if fault is None else str(fault).rstrip(".")
            why = errors.OutOfService(
                f"{reason}. Nothing was answered for {duration(seconds)}: run again to go on"
            )
        self._traffic.stop(why)
        for task in self._waiting:
            self._given_up.add(task)
            task.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
