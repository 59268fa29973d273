"""What can go wrong at an endpoint, and for which requests.

A `Fault` is a value: what is sent in place of, or does to, the true answer. The functions that make
one say in their docstrings what a client meets. A rule, made by `on`, is a function that says which
fault strikes a request, if any.
"""

import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from dataflow_grounding.testing.dialects import Answer
from dataflow_grounding.testing.received import ReceivedRequest

HTML_PAGE = (
    b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad"
    b" gateway</h1></body></html>"
)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with one reply.

    The functions of this module make them; `replace` combines two.

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

quota_exceeded = partial(
    Fault,
    429,
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
)
"""429 that no waiting will cure: the account has no credit left."""
unauthorized = partial(Fault, 401, "Incorrect API key provided.", "invalid_api_key")
"""401: the key is wrong."""
forbidden = partial(Fault, 403, "You are not allowed to use this model.", "permission_denied")
"""403: the key is right and may not do this."""
model_not_found = partial(
    Fault,
    404,
    "The model does not exist or you do not have access to it.",
    "model_not_found",
    "model",
)
"""404: no such model."""
no_room_at_tier = partial(
    Fault, 429, "The requested resources are temporarily unavailable.", "resource_unavailable"
)
"""429 of the service tier `flex`, which has no room; it isn't billed."""
content_filter = partial(
    Fault,
    400,
    "The response was filtered due to the prompt triggering a content policy.",
    "content_filter",
    "prompt",
)
"""400: the endpoint's content filter stopped this one request."""
hang = partial(Fault, hang=True)
"""No reply, ever; the connection stays open."""
disconnect = partial(Fault, sent_share=0.0)
"""The connection is closed without one byte of a reply."""
garbage = partial(Fault, 200, body=bytes(range(128, 256)) * 4)
"""200 with bytes that are not text."""
empty_body = partial(Fault, 200, body=b"")
"""200 with nothing in it."""
invalid_json = partial(Fault, 200, body=b'{"choices": [{"message": {"content": "{')
"""200 whose JSON breaks off, with a Content-Length that is right."""
filtered_reply = partial(
    Fault, change=lambda answer: replace(answer, text="", finish_reason="content_filter")
)
"""200 without text and with `finish_reason` `content_filter`."""


def too_many_requests(
    retry_after: float | None = None,
    *,
    http_date: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Fault:
    """429, with the seconds of `retry_after` as `Retry-After`, or with `http_date` the time then.

    Further headers may be such as `x-ratelimit-reset-requests`.
    """
    return Fault(
        429,
        "Rate limit reached. Please try again later.",
        "rate_limit_exceeded",
        headers=headers or {},
        retry_after=retry_after,
        http_date=http_date,
    )


def bad_request(
    message: str = "The request is not valid.", code: str = "", param: str | None = None
) -> Fault:
    """400 with any message."""
    return Fault(400, message, code, param)


def server_error(status: int = 500, retry_after: float | None = None) -> Fault:
    """500, 502, 503, 529 …, with an error as JSON."""
    message = "The server had an error while processing your request."
    return Fault(status, message, "server_error", retry_after=retry_after)


def html_error(status: int = 502) -> Fault:
    """A proxy's error page instead of JSON."""
    return Fault(status, body=HTML_PAGE, headers={"Content-Type": "text/html"})


def slow(seconds: float) -> Fault:
    """The true answer, later."""
    return Fault(delay=seconds)


def cut_body(share: float = 0.5) -> Fault:
    """The connection is closed after this share (0 to 1) of the response's bytes."""
    return Fault(sent_share=share)


def slow_drip(bytes_per_second: float = 200.0) -> Fault:
    """The true answer, a few bytes at a time."""
    return Fault(bytes_per_second=bytes_per_second)


def odd_json(text: str = "{}") -> Fault:
    """200 with JSON that is not a reply of the protocol."""
    return Fault(200, body=text.encode())


def truncated(share: float = 0.6) -> Fault:
    """The answer's text ends after this share of its characters, `finish_reason` is `length`."""
    return Fault(
        change=lambda answer: replace(
            answer, text=answer.text[: int(len(answer.text) * share)], finish_reason="length"
        )
    )


def refusal(message: str = "I'm sorry, I can't help with that.") -> Fault:
    """The model refuses: OpenAI's `refusal`, Gemini's blocked prompt."""
    return Fault(change=lambda answer: replace(answer, text="", refusal=message))


def says(text: str) -> Fault:
    """The model answers with this text in place of the true answer."""
    return Fault(change=lambda answer: replace(answer, text=text))


def huge_reply(size: int = 10_000_000) -> Fault:
    """The true answer with blanks after it, `size` bytes in all."""
    return Fault(change=lambda answer: replace(answer, text=answer.text.ljust(size)))


def refuse_connections(seconds: float) -> Fault:
    """The server goes away for `seconds`, then it is back on its port.

    Connections are dropped and new ones refused.
    """
    return Fault(down_for=seconds)


def stall(seconds: float) -> Fault:
    """The whole server stops answering for `seconds`; what came meanwhile is answered then."""
    return Fault(stall_for=seconds)


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
        >>> from dataflow_grounding.testing import faults
        >>> from dataflow_grounding.testing import LoopbackServer, on
        >>> limited = on(faults.too_many_requests(2), indexes=range(3))
        >>> rules = [limited, on(faults.cut_body(), share=0.1)]
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
