"""What endpoints send that are faulty, overloaded or unwilling; docstrings say what a client meets."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from dataflow_grounding.testing import Fault, FaultRule, ReceivedRequest, faults
from dataflow_grounding.testing.faults import model_not_found as model_not_found
from dataflow_grounding.testing.faults import unauthorized as unauthorized

KEY_HEADERS = ("authorization", "api-key", "x-goog-api-key")  # of OpenAI, Azure and Gemini
HTML_PAGE = (
    b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>Bad"
    b" gateway</h1></body></html>"
)

quota_exceeded = partial(
    Fault,
    429,
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
)
"""429 that no waiting will cure: the account has no credit left."""
forbidden = partial(Fault, 403, "You are not allowed to use this model.", "permission_denied")
"""403: the key is right and may not do this."""
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


def too_many_requests(retry_after: float | None = None, **more: Any) -> Fault:
    """429, with `retry_after` seconds; `more` of a fault, such as `http_date` or headers."""
    return faults.too_many_requests(retry_after=retry_after, **more)


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


def leaky(rule: FaultRule) -> FaultRule:
    """The same faults, whose errors repeat the key, as those of some endpoints do."""

    def with_key(request: ReceivedRequest) -> Fault | None:
        fault = rule(request)
        if fault is None:
            return None
        keys = [request.headers[name] for name in KEY_HEADERS if name in request.headers]
        key = keys[0] if keys else request.path  # which may have it: `…?key=KEY`
        return replace(fault, message=f"{fault.message} (key: {key})")

    return with_key
