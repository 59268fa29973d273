"""What can go wrong at an endpoint, and for which requests.

A `Fault` is a value: what is sent in place of, or does to, the true answer. A rule, made by `on`,
is a function that says which fault strikes a request, if any. The named faults are those that the
server sends by itself.
"""

import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from dataflow_grounding.testing.dialects import Answer
from dataflow_grounding.testing.received import ReceivedRequest


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one reply.

    Args:
        status: HTTP status; None leaves the true answer in place.
        message: The error's text; `code` and `param` are next to it as the protocol has them.
        headers: Added to the response.
        retry_after: Seconds to wait, sent as `Retry-After`; as a date with `http_date`.
        body: Sent in place of the error's JSON.
        change: Changes the true answer.
        delay: Seconds on top of the latency.
        hang: Whether nothing is ever sent.
        sent_share: Share of the response's bytes, 0 to 1, after which the connection is cut.
        bytes_per_second: Speed at which the body drips.
        down_for: Seconds for which the listening socket and every connection are closed;
            `stall_for`: nothing is sent.

    Example:
        >>> from dataclasses import replace
        >>> overloaded = Fault(503, "Overloaded.", retry_after=2)
        >>> half_a_reply = Fault(sent_share=0.5)
        >>> nothing_said = Fault(change=lambda answer: replace(answer, text=""))
    """

    status: int | None = None
    message: str = ""
    code: str = ""
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    http_date: bool = False
    body: bytes | None = None
    change: Callable[[Answer], Answer] | None = None
    delay: float = 0.0
    hang: bool = False
    sent_share: float = 1.0
    bytes_per_second: float | None = None
    down_for: float | None = None
    stall_for: float | None = None


FaultRule = Callable[[ReceivedRequest], "Fault | None"]
"""Returns what goes wrong with the reply to a request; None where nothing does."""

unauthorized = partial(Fault, 401, "Incorrect API key provided.", "invalid_api_key")
"""401: the key is wrong."""
model_not_found = partial(
    Fault,
    404,
    "The model does not exist or you do not have access to it.",
    "model_not_found",
    "model",
)
"""404: no such model."""
too_many_requests = partial(
    Fault, 429, "Rate limit reached. Please try again later.", "rate_limit_exceeded"
)
"""429: try again later."""


def on(
    fault: Fault,
    *,
    indexes: Container[int] | None = None,
    task: str | None = None,
    containing: str | None = None,
    where: Callable[[ReceivedRequest], bool] | None = None,
    share: float = 1.0,
    times: int | None = None,
    times_each: int | None = None,
    seed: int = 0,
) -> FaultRule:
    """Return a rule: `fault` for the requests that meet every condition stated.

    Args:
        fault: What goes wrong.
        indexes: Numbers of arrival, from 0: `range(10, 14)` is a burst.
        task: The task that is asked for.
        containing: Text in the user message, one record's caption, say.
        where: Any other condition.
        share: Part of the requests, 0 to 1, drawn at random, the same with the same `seed`.
        times: How often it strikes in all; `times_each`: each distinct question, so that asking
            again succeeds.

    Example:
        >>> from dataflow_grounding.testing import Fault, LoopbackServer, on
        >>> limited = on(Fault(429, "Rate limit reached.", retry_after=2), indexes=range(3))
        >>> rules = [limited, on(Fault(sent_share=0.5), share=0.1)]
        >>> server = LoopbackServer(faults=rules)
    """
    return _Rule(
        fault=fault,
        indexes=indexes,
        task=task,
        containing=containing,
        where=where,
        share=share,
        times=times,
        times_each=times_each,
        seed=seed,
    )


@dataclass
class _Rule:
    """A rule that `on` has made. It counts how often it strikes."""

    fault: Fault
    indexes: Container[int] | None
    task: str | None
    containing: str | None
    where: Callable[[ReceivedRequest], bool] | None
    share: float
    times: int | None
    times_each: int | None
    seed: int
    # By question if these are counted separately, else all under "".
    strikes: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: ReceivedRequest) -> Fault | None:
        if not self._is_meant(request):
            return None
        if self.times is not None and self.strikes.total() >= self.times:
            return None
        if self.times_each is None:  # questions aren't told apart
            self.strikes[""] += 1
            return self.fault
        # The same text with other pictures is another question.
        question = "/".join([request.text, *request.image_digests])
        if self.strikes[question] >= self.times_each:
            return None
        self.strikes[question] += 1
        return self.fault

    def _is_meant(self, request: ReceivedRequest) -> bool:
        if self.indexes is not None and request.index not in self.indexes:
            return False
        if self.task is not None and request.task != self.task:
            return False
        if self.containing is not None and self.containing not in request.text:
            return False
        if self.where is not None and not self.where(request):
            return False
        # By the number of arrival: with the same seed, the same numbers are drawn.
        return random.Random(f"{self.seed}/{request.index}").random() < self.share


def first_of(rules: Iterable[FaultRule]) -> FaultRule:
    """Return one rule for several, tried in order: the first that strikes says the fault."""
    return partial(_first_fault, tuple(rules))


def _first_fault(rules: Iterable[FaultRule], request: ReceivedRequest) -> Fault | None:
    """The rules after that one are not asked, and so don't count the request."""
    for rule in rules:
        fault = rule(request)
        if fault is not None:
            return fault
    return None
