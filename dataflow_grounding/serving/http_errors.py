"""What an HTTP answer other than a success means, for any provider."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from dataflow_grounding._util import errors
from dataflow_grounding._util.secrets import excerpt

# Gemini and xAI answer a wrong key with 400, OpenRouter and Mistral an unknown model.
_KEY = re.compile(
    r"API_KEY_INVALID|\b(?:incorrect|invalid|wrong|missing|expired|no)\W+(?:\w+\W+){0,2}api["
    r" _-]?key\b"
    r"|\bapi[ _-]?key\W+(?:\w+\W+){0,3}(?:not valid|invalid|incorrect|expired|missing|required|not"
    r" found)\b",
    re.IGNORECASE,
)
_MODEL = re.compile(
    r"\b(?:invalid|unknown|no such|not a valid) model\b|\bmodel\W+(?:\S+\W+){0,3}(?:does not"
    r" exist|not found)\b",
    re.IGNORECASE,
)
_CONTENT = re.compile(
    r"content\W.*?\b(?:filter|policy|policies)|content_filter|moderation|\bflagged\b|\bsafety\b",
    re.I | re.S,
)
LONGEST_TEXT = 400  # characters of a reset time
LONGEST = 1e8  # seconds: nobody can sleep for infinity


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, *, where: str
) -> errors.GroundingError:
    """The exception for an answer with this status."""
    error, details = _error_in(body[:20_000].decode("utf-8", "replace"))
    said = excerpt(_message(error, details))
    text = f"{where} answered {status}" + (f": {said}" if said else "")
    asked = status in (400, 422)
    # where key, account, address, model or proxy are wrong, other requests fail like this one
    refusals = (
        (status in (401, 403) or (asked and _KEY.search(said)), "Check the API key", status == 401),
        (
            status == 402 or "insufficient_quota" in said,
            "The account has no credit left",
            status != 402,
        ),
        (
            status in (404, 405) or (asked and _MODEL.search(said)),
            "Check the address and the model's name",
            False,
        ),
        (status == 407, "Check the proxy's name and password", False),
    )
    for is_so, advice, certain in refusals:
        if is_so:
            return errors.EndpointRefused(f"{text}. {advice}.", certain=certain)
    if status in (429, 503, 529):
        busy = errors.RateLimited if status == 429 else errors.ServerOverloaded
        return busy(text, _wait(headers, details))
    if status >= 500 or status in (408, 409, 425):
        return errors.ServerFault(text)
    if status >= 400:
        return errors.RequestRefused(text)
    return errors.ServerFault(f"{text} (redirected or no answer to a request: check the address)")


def is_about_content(said: str) -> bool:
    """Whether a refusal is about what a request shows or says, in content filters' words: the
    endpoint is well.
    """
    return _CONTENT.search(said) is not None


def _wait(headers: Mapping[str, str], details: Sequence[Mapping[str, Any]]) -> float | None:
    """What the headers ask for, else Google's `RetryInfo`; a day where it says that a day's quota
    is used up.
    """
    if any("PerDay" in str(detail.get("violations")) for detail in details):
        return 86_400.0
    if (wait := retry_after(headers)) is not None:
        return wait
    delays = (
        d.get("retryDelay", "")
        for d in details
        if str(d.get("@type")).endswith("google.rpc.RetryInfo")
    )
    return _duration(str(next(delays, "")))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait, by its headers; None when it asks for none."""
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after")
    with suppress(ValueError):  # it may be a date
        if milliseconds is not None:
            return _bounded(float(milliseconds) / 1000)
        return used_up(headers) if value is None else _bounded(float(value))
    until, now = _seconds_of(value), _seconds_of(headers.get("date"))
    if until is None:
        return None
    # by the endpoint's clock, whatever ours says
    return _bounded(until - (time.time() if now is None else now))


def _seconds_of(date: str | None) -> float | None:
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date or "").timestamp()
    return None


def used_up(headers: Mapping[str, str]) -> float | None:
    """Seconds until the reset (`x-ratelimit-reset-*`) of a limit of which `x-ratelimit-remaining-*`
    is 0; else None.
    """
    spent = (
        what
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    )
    waits = [_duration(headers.get(f"x-ratelimit-reset-{what}", "")) for what in spent]
    return max((wait for wait in waits if wait is not None), default=None)


def _duration(text: str) -> float | None:
    """A reset time, `1m30s`, `120ms` or plain seconds (as OpenAI and vLLM gateways write them), in
    seconds.
    """
    if len(text) > LONGEST_TEXT:  # each digit of a long one would be tried as the first of a number
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        # else a Unix time
        return _bounded(float(text)) if float(text) < 10**6 else _bounded(float(text) - time.time())
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return _bounded(sum(float(number) * units[unit] for number, unit in parts))


def _bounded(seconds: float) -> float | None:
    return min(max(seconds, 0.0), LONGEST) if seconds == seconds else None


def _error_in(body: str) -> tuple[Any, list[dict[str, Any]]]:
    """What a body says of an error, as JSON or in words, and Google's details of it; nothing of a
    page.
    """
    data = None
    with suppress(ValueError, RecursionError):
        data = json.loads(body)
    if data is None:
        return "" if body.lstrip().startswith("<") else body, []
    data = _first_of(data)  # Google's OpenAI-compatible addresses answer with a list
    error = _first_of(data.get("error", data)) if isinstance(data, dict) else data
    details = error.get("details") if isinstance(error, dict) and error is not data else None
    return error, (
        [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    )


def _first_of(data: Any) -> Any:
    return data[0] if isinstance(data, list) and data else data


def _message(error: Any, details: Sequence[Mapping[str, Any]]) -> str:
    if not isinstance(error, dict):
        return str(error)
    words = error.get("message") or error.get("detail") or error
    code = (
        ", ".join(str(one["reason"]) for one in details if "reason" in one)
        or error.get("code")
        or error.get("type")
    )
    return f"{words} ({code})" if isinstance(code, str) else str(words)
