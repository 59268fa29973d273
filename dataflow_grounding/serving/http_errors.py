"""What an HTTP answer other than a success means, for any provider."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

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
_BUSY = (429, 503, 529)
LONGEST_TEXT = 400  # characters of a reset time
LONGEST = 1e8  # seconds: nobody can sleep for infinity


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, *, where: str
) -> errors.GroundingError:
    """The exception for an answer with this status."""
    error, details = _error_in(body[:20_000].decode("utf-8", "replace"))
    message = excerpt(_message(error, details))
    text = f"{where} answered {status}"
    if message:
        text += f": {message}"
    advice = _advice_for_all(status, message)
    if advice is not None:
        return errors.EndpointRefused(f"{text}. {advice.text}.", certain=advice.certain)
    if status in _BUSY:
        busy = errors.RateLimited if status == 429 else errors.ServerOverloaded
        return busy(text, _wait(headers, details))
    if status >= 500 or status in (408, 409, 425):
        return errors.ServerFault(text)
    if status >= 400:
        return errors.RequestRefused(text)
    return errors.ServerFault(f"{text} (redirected or no answer to a request: check the address)")


class _Advice(NamedTuple):
    """What to do where other requests fail like this one."""

    text: str
    certain: bool
    """Whether they surely fail; else the answer may be about this one request."""


def _advice_for_all(status: int, message: str) -> _Advice | None:
    """What to do where key, account, address, model or proxy are wrong; None for anything else."""
    is_bad_request = status in (400, 422)
    if status in (401, 403) or (is_bad_request and _KEY.search(message)):
        return _Advice("Check the API key", certain=status == 401)
    if status == 402 or "insufficient_quota" in message:
        return _Advice("The account has no credit left", certain=status != 402)
    if status in (404, 405) or (is_bad_request and _MODEL.search(message)):
        return _Advice("Check the address and the model's name", certain=False)
    if status == 407:
        return _Advice("Check the proxy's name and password", certain=False)
    return None


def is_about_content(refusal: str) -> bool:
    """Whether a refusal is about what a request shows or says, in content filters' words.

    The endpoint itself is then well.
    """
    return _CONTENT.search(refusal) is not None


def _wait(headers: Mapping[str, str], details: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds that the headers ask to wait, else those of Google's `RetryInfo`.

    A day where Google's details say that a day's quota is used up.
    """
    if any("PerDay" in str(detail.get("violations")) for detail in details):
        return 86_400.0
    wait = retry_after(headers)
    if wait is not None:
        return wait
    for detail in details:
        if str(detail.get("@type")).endswith("google.rpc.RetryInfo"):
            return _duration(str(detail.get("retryDelay", "")))
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait, by its headers; None when it asks for none."""
    milliseconds = headers.get("retry-after-ms")
    value = headers.get("retry-after")
    with suppress(ValueError):  # it may be a date
        if milliseconds is not None:
            return _bounded(float(milliseconds) / 1000)
        if value is None:
            return used_up(headers)
        return _bounded(float(value))
    until = _seconds_of(value)
    if until is None:
        return None
    now = _seconds_of(headers.get("date"))  # by the endpoint's clock, whatever ours says
    if now is None:
        now = time.time()
    return _bounded(until - now)


def _seconds_of(date: str | None) -> float | None:
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date or "").timestamp()
    return None


def used_up(headers: Mapping[str, str]) -> float | None:
    """Seconds until the reset of the limits that are used up; None where none is.

    A limit is used up where `x-ratelimit-remaining-*` is 0; `x-ratelimit-reset-*` is its reset.
    """
    waits = []
    for limit in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{limit}") == "0":
            wait = _duration(headers.get(f"x-ratelimit-reset-{limit}", ""))
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


def _duration(text: str) -> float | None:
    """A reset time in seconds: `1m30s`, `120ms`, plain seconds or a Unix time.

    So OpenAI and vLLM gateways write it; None for anything else.
    """
    if len(text) > LONGEST_TEXT:  # each digit of a long one would be tried as the first of a number
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
        if seconds >= 10**6:  # a Unix time
            seconds -= time.time()
        return _bounded(seconds)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return _bounded(sum(float(number) * units[unit] for number, unit in parts))


def _bounded(seconds: float) -> float | None:
    return min(max(seconds, 0.0), LONGEST) if seconds == seconds else None


def _error_in(body: str) -> tuple[Any, list[dict[str, Any]]]:
    """What a body says of an error, as JSON or in words, and Google's details of it.

    Nothing of a web page is taken.
    """
    data = None
    with suppress(ValueError, RecursionError):
        data = json.loads(body)
    if data is None:
        is_page = body.lstrip().startswith("<")
        return "" if is_page else body, []
    data = _first_of(data)  # Google's OpenAI-compatible addresses answer with a list
    if not isinstance(data, dict):
        return data, []
    error = _first_of(data.get("error", data))
    details = None
    if isinstance(error, dict) and error is not data:
        details = error.get("details")
    if not isinstance(details, list):
        return error, []
    return error, [detail for detail in details if isinstance(detail, dict)]


def _first_of(data: Any) -> Any:
    return data[0] if isinstance(data, list) and data else data


def _message(error: Any, details: Sequence[Mapping[str, Any]]) -> str:
    if not isinstance(error, dict):
        return str(error)
    words = error.get("message") or error.get("detail") or error
    reasons = [str(detail["reason"]) for detail in details if "reason" in detail]
    code = ", ".join(reasons) or error.get("code") or error.get("type")
    return f"{words} ({code})" if isinstance(code, str) else str(words)
