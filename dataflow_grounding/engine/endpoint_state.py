"""What an endpoint's errors say about the endpoint: whether a run should go on asking it."""

import math
import time
from typing import Any

from dataflow_grounding import errors
from dataflow_grounding.engine.keyed_log import ReplyLog
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.serving.http_errors import is_about_content

REFUSED_IN_A_ROW = 10  # requests refused with no answer between them, after which it is no longer their records' fault

OVERLOADED_TRIES = 10
UNREACHABLE_TRIES = 3
FAULTS_BEFORE_FIRST_ANSWER = 50
ODD_BEFORE_FIRST_ANSWER = 8
OUTAGE_SECONDS = 300.0


class EndpointState:
    """Counts what came since the last answer. `max_wait`: seconds for which rate limits are waited for without one."""

    def __init__(self, max_wait: float) -> None:
        self._max_wait = max_wait
        self._last_answer: float | None = None
        self._limited_since: float | None = None
        self._faults = self._odd = self._refused = 0
        self.held_lines: dict[str, tuple[dict[str, Any], bool, ReplyLog]] = {}

    @property
    def has_answered(self) -> bool:
        """Whether any answer has come in this run."""
        return self._last_answer is not None

    def answered(self) -> None:
        """An answer has come: the endpoint is well, and the refusals before it were about their records."""
        for key, (line, _, store) in self.held_lines.items():
            store.put(key, line)
        self.held_lines.clear()
        self._last_answer = time.monotonic()
        self._limited_since = None
        self._faults = self._odd = self._refused = 0

    def refused(self, error: errors.EndpointRefused | errors.RequestRefused) -> errors.RequestRefused:
        """The refusal as its record's own. Raises EndpointRefused where no other request would fare better."""
        if is_about_content(str(error)):
            self.answered()
            return errors.RequestRefused(str(error))
        self._refused += 1
        if isinstance(error, errors.EndpointRefused):
            if error.certain or not self.has_answered:
                raise error
            if self._refused >= REFUSED_IN_A_ROW:
                raise errors.EndpointRefused(f"{error} {self._refused} requests in a row were refused")
            refusal = errors.RequestRefused(str(error))
            refusal.passing = True
            return refusal
        if not self.has_answered and self._refused >= REFUSED_IN_A_ROW:
            said = str(error).rstrip(".")
            count = f"{self._refused} requests were refused and none was answered"
            raise errors.EndpointRefused(f"{said}. {count}: check the key, the model and the settings")
        return error

    def hold(self, key: str, line: dict[str, Any], passing: bool, store: ReplyLog) -> None:
        """Keep a refusal out of its store until an answer has come after it; `passing`: it may be the endpoint's."""
        self.held_lines[key] = (line, passing, store)

    def held(self, key: str) -> dict[str, Any] | None:
        """The refusal that is held under a key."""
        return self.held_lines[key][0] if key in self.held_lines else None

    def settle(self) -> int:
        """Store the refusals that are surely about their records. Returns how many others the next run asks."""
        for key, (line, passing, store) in list(self.held_lines.items()):
            if self.has_answered and not passing:
                store.put(key, line)
                del self.held_lines[key]
        return len(self.held_lines)

    def failed(self, error: errors.ServerFault, tries: int, worn: bool = False) -> None:
        """A fault or a wish to wait, `worn` after many. Raises EndpointRefused, OutOfService, QuotaUsedUp."""
        if isinstance(error, errors.ServerOverloaded):
            self._limited(error)
        if isinstance(error, errors.RateLimited):
            return
        hopeless = isinstance(error, errors.EndpointUnreachable) and tries >= UNREACHABLE_TRIES
        self._faults += 1
        self._odd += isinstance(error, errors.NoCompletion)
        often = worn or self._faults >= FAULTS_BEFORE_FIRST_ANSWER
        if self._last_answer is None:
            if hopeless or often or self._odd >= ODD_BEFORE_FIRST_ANSWER:
                raise errors.EndpointRefused(f"{error}. Nothing was answered: check the address and the server")
        elif time.monotonic() - self._last_answer > OUTAGE_SECONDS and often:
            raise errors.OutOfService(f"{error}. Nothing was answered for {OUTAGE_SECONDS:g} s: run again to go on")

    def _limited(self, error: errors.ServerOverloaded) -> None:
        now = time.monotonic()
        if (error.retry_after or 0.0) > self._max_wait:
            seconds = error.retry_after or 0.0
            raise errors.QuotaUsedUp(f"{error}. It asks to wait {duration(seconds)}: come back {_clock(seconds)}")
        if not isinstance(error, errors.RateLimited):
            return
        if self._limited_since is None:
            self._limited_since = now
        if now - self._limited_since > self._max_wait:
            waited = duration(now - self._limited_since)
            raise errors.QuotaUsedUp(f"{error}. No answer came for {waited}: come back later")


def most_tries(error: errors.ServerFault, usual: int) -> float:
    """How often a request is tried that ends in this error each time; endlessly where it is the run that stops."""
    if isinstance(error, errors.EndpointUnreachable):
        return math.inf
    return OVERLOADED_TRIES if isinstance(error, errors.ServerOverloaded) else usual


def _clock(seconds: float) -> str:
    """In so many seconds, as local time."""
    if seconds > 10**7:  # no wait that anybody means
        return "later"
    return time.strftime("at %H:%M on %Y-%m-%d", time.localtime(time.time() + seconds))
