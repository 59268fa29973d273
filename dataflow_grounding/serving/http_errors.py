"""What an HTTP answer other than a success means, for any provider: `error_of`.

The status decides, except for errors that some providers send under a general status. Those are
recognized by the words of the answer.
"""

import json
import math
import re
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dataflow_grounding._util import errors
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.data.records import JsonObject

# Words about a wrong key: `Incorrect API key provided`, `api_key is not valid`, `no API key`.
# Gemini and xAI answer one with 400.
_KEY = re.compile(
    r"API_KEY_INVALID|\b(?:incorrect|invalid|wrong|missing|expired|no)\W+(?:\w+\W+){0,2}api["
    r" _-]?key\b"
    r"|\bapi[ _-]?key\W+(?:\w+\W+){0,3}(?:not valid|invalid|incorrect|expired|missing|required|not"
    r" found)\b",
    re.IGNORECASE,
)
# Words about an unknown model: `invalid model`, `The model "x" does not exist`. OpenRouter and
# Mistral answer one with 400; so does `transformers serve MODEL` any other than that one.
_MODEL = re.compile(
    r"\b(?:invalid|unknown|no such|not a valid) model\b|\bmodel\W+(?:\S+\W+){0,3}(?:does not"
    r" exist|not found)\b|\bserver is pinned to\b",
    re.IGNORECASE,
)
# All that a server says of a path that it doesn't have: nothing, or a web page, `404 page not
# found` (Go: Ollama), `Not Found` (FastAPI: vLLM, SGLang, LiteLLM), `File Not Found` (llama.cpp),
# `Invalid URL (POST /chat/completions)` (OpenAI), `Cannot POST /chat/completions` (Express); of a
# gateway: `default backend - 404` (Kubernetes), `no Route matched with those values` (Kong).
_NO_SUCH_PATH = re.compile(
    r"|(?:404\W+)?(?:(?:file|page|path|route|url)\W+)?not found\W*(?:\(.*\))?"
    r"|.*/chat/completions\b.*|default backend\b.*|no route matched\b.*",
    re.IGNORECASE | re.DOTALL,
)
# LM Studio says that with 200 (lmstudio-ai/lmstudio-bug-tracker#618).
_NO_SUCH_PATH_WITH_200 = "Unexpected endpoint or method"
_VERSION = re.compile(r"/v\d")  # in an address's path: /v1, /v1beta/openai, /api/paas/v4
# Codes of an account or a budget that is used up: OpenAI's (429, 400), LiteLLM's (400, 422),
# DashScope's (400).
_NO_CREDIT = re.compile(
    r"\b(?:insufficient_quota|billing_hard_limit_reached|budget_exceeded|Arrearage)\b"
    # LiteLLM's words: of a budget (422, where a code may be missing), of a span of time's and of a
    # deployment's (429); OpenRouter's of a key's limit (403, gptme/gptme#1449)
    r"|Budget has been exceeded!|ExceededBudget:|crossed budget: Exceeded budget"
    r"|\bKey limit exceeded\b"
)
# OpenRouter's 402: "This request requires more credits, or fewer max_tokens."
_FEWER_TOKENS = re.compile(r"fewer max_tokens")
# Words of a content filter: `content policy`, `content_filter`, `flagged`, `safety`.
_CONTENT = re.compile(
    r"content\W.*?\b(?:filter|policy|policies)|content_filter|moderation|\bflagged\b|\bsafety\b",
    re.I | re.S,
)
# Words of refusals, in lower case, by servers whose model takes no images.
_NO_IMAGES = (
    "not a multimodal model",
    "does not support image",
    "no endpoints found that support image",
    "image input is not supported",
    "image_url is only supported by certain models",
    "unknown variant `image_url`",
    "at most 0 image",
)
# What is too large, and that it is, in the words of endpoints and of proxies before them; the texts
# are in tests/serving/test_pictures_too_large.py, with their threads.
_OF_BYTES = re.compile(
    r"image|picture|photo|payload|entity|\bfile\b|data-?ur[il]|base64|\bbytes\b|\d ?[KM]i?B\b"
    r"|request[ _-](?:body|size)|\bbody (?:is |size |was )?(?:too|exceed|larger)"
    r"|request (?:is |was )?too large",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"too[_ -](?:large|big|long)|exceed|larger than|(?:size|length) limit|limit (?:is )?exceeded"
    r"|over the (?:limit|maximum)|maximum (?:allowed )?size|must be (?:less|smaller) than",
    re.IGNORECASE,
)
# Words of another limit: of tokens, of a rate, of how many pictures, of their sides. Fewer bytes
# don't help against these, or aren't known to.
_NOT_BYTES = re.compile(
    r"token|context|pixels?\b|dimension|resolution|\bwidth\b|\bheight\b|aspect ratio"
    r"|per[ _-]min|rate[ _-]limit|quota"
    r"|(?:number of|many|\d) (?:images?|pictures?)|(?:image|picture)s? count",
    re.IGNORECASE,
)
DAY = 86_400.0  # seconds
# "Rate limit exceeded: free-models-per-day" (Aider-AI/aider#3550)
_PER_DAY = re.compile(r"\bper[- ]day\b", re.IGNORECASE)
FIRST_UNIX_TIME = 10.0**6  # a reset time in seconds from this on is no wait, but a Unix time
BODY_BYTES = 20_000  # of an answer's body that are read
LONGEST_MESSAGE = 1000  # characters of what an endpoint says that are shown
_TIME_AND_UNIT = r"(\d+(?:\.\d+)?)(ms|s|m|h)"  # in a reset time
MOST_CAUSES = 32  # that are looked at under an error
LONGEST = 1e8  # seconds that are waited at the most: a server may ask for infinity


class _Row(NamedTuple):
    """What an answer of these statuses means whose words fit."""

    statuses: Container[int]
    fits: Callable[[str], object]
    meaning: str


def _any(words: str) -> bool:
    return True


def _says_too_large(words: str) -> bool:
    says_so = _OF_BYTES.search(words) and _TOO_LARGE.search(words)
    return says_so is not None and not _NOT_BYTES.search(words)


def takes_no_images(refusal: str) -> bool:
    """Return whether a refusal says so, by the words of the servers in docs/endpoints.md."""
    lowered = refusal.lower()
    return any(words in lowered for words in _NO_IMAGES)


_FAULT = _Row(range(500, 600), _any, "a fault")
# The first row that fits decides: words go before what the status alone would mean.
_TABLE = [
    _Row({402}, _any, "no credit"),
    _Row(range(400, 500), _NO_CREDIT.search, "no credit"),
    # 413 says so without words. But Groq sends it with words about tokens a minute.
    _Row({413}, lambda words: not _NOT_BYTES.search(words), "too large"),
    _Row({400, 404, 422}, _says_too_large, "too large"),
    _Row({401}, _any, "the key"),
    # A 403 may be about what this one request asks for or shows; a 400 or 422 may mean anything.
    _Row({403}, _any, "perhaps the key"),
    _Row({400, 422}, _KEY.search, "perhaps the key"),
    _Row({404, 405}, _any, "perhaps the address"),
    _Row({400, 422}, _MODEL.search, "perhaps the address"),
    _Row({407}, _any, "perhaps the proxy"),
    _Row({429}, _any, "limited"),
    _Row({503, 529}, _any, "busy"),
    _Row(range(500, 600), takes_no_images, "no images"),  # llama.cpp says so with 500
    # A request that fails with a 500 isn't charged for (Gemini's billing page). After a time limit
    # (408), a conflict, or a gateway's status for no reply, it may be: the model may have answered.
    _Row({408, 409, 425, 502, 504, 522, 524}, _any, "a fault that may be billed"),
    _FAULT,
    _Row(range(400, 500), _any, "refused"),
    # Only a 200 is a reply: any other status below 400 has none.
    _Row(range(1000), _any, "no reply"),
]
_ADVICE = {
    "the key": "Check the API key",
    "perhaps the key": "Check the API key",
    "perhaps the address": "Check the address and the model's name",
    "perhaps the proxy": "Check the proxy's name and password",
    "no images": "The model takes no images: name one that does",
}
"""What to do where all requests fail."""


def error_of(
    status: int,
    headers: Mapping[str, str],  # their names are in lower case
    body: bytes,
    *,
    where: str,  # the endpoint as the message names it
    said: str = "",  # after the status, such as "inside a 200"
    address: str = "",  # the message asks whether `/v1` is missing from it
) -> errors.GroundingError:
    """Return what an answer means, by _TABLE.

    - EndpointRefused where all requests fail like this one, NoCredit for want of money
    - RateLimited or ServerOverloaded, with the wait that is asked for, from a busy endpoint
    - ServerFault for a fault that may pass, Redirected for a status below 400
    - PictureTooLarge for too many bytes, else RequestRefused
    """
    error, details = _error_in(body[:BODY_BYTES].decode("utf-8", "replace"))
    words = excerpt(_message(error, details), LONGEST_MESSAGE)  # what the answer says
    message = f"{where} answered {status}"  # of the error that is returned, or its beginning
    if said:
        message += f" {said}"
    if words:
        message += f": {words}"
    all_words = f"{words} {_codes_of(error)}"
    fitting = (row for row in _TABLE if status in row.statuses and row.fits(all_words))
    meaning = next(fitting, _FAULT).meaning
    wait = _seconds_to_wait(headers, details)
    # a server that states a wait is busy, not broken
    if meaning in ("limited", "busy") or (status >= 500 and wait is not None):
        kind = errors.RateLimited if meaning == "limited" else errors.ServerOverloaded
        busy = kind(message, wait)
        # Google says of which quota: {"violations": [{"quotaId": "…RequestsPerDay…"}]}
        is_of_a_day = any("PerDay" in str(detail.get("violations")) for detail in details)
        if is_of_a_day or (wait is None and _PER_DAY.search(words)):
            busy.is_quota, busy.retry_after = True, DAY
        return busy
    sentence = message.rstrip(".")
    if meaning == "no credit":
        return errors.NoCredit(
            f"{sentence}. Top up the account, and run again to go on.",
            certain=_FEWER_TOKENS.search(words) is None,  # else smaller requests may do
        )
    if meaning in _ADVICE:
        question = ""
        if status == 404 and _NO_SUCH_PATH.fullmatch(words):
            question = _question_about(address)
        is_certain = meaning in ("the key", "no images")
        return errors.EndpointRefused(
            f"{sentence}. {question}{_ADVICE[meaning]}.", certain=is_certain
        )
    if meaning == "too large":
        return errors.PictureTooLarge(message)
    if meaning == "refused":
        return errors.RequestRefused(message)
    if meaning == "no reply":
        return errors.Redirected(
            f"{message} (redirected or no answer to a request: check the address)"
        )
    fault = errors.ServerFault(message)
    fault.may_be_billed = meaning == "a fault that may be billed"
    return fault


def error_of_success(
    error: JsonObject, headers: Mapping[str, str], *, where: str, address: str = ""
) -> errors.GroundingError:
    """Return what an error inside a 200 means: by its `code`, its words, else as a 500."""
    code: Any = error.get("code")
    if isinstance(code, str):
        with suppress(ValueError):  # a word, such as "overloaded"
            code = int(code)
    is_status_of_error = type(code) is int and 400 <= code < 600
    status = code if is_status_of_error else 500
    if status == 500:
        # Two errors don't pass, though they come with 500 or no status.
        words = f"{code} {error.get('message')}"
        if is_about_content(words):
            status = 400
        elif _NO_SUCH_PATH_WITH_200 in words:
            status = 404
    body = json.dumps({"error": error}).encode()
    meant = error_of(status, headers, body, where=where, said="inside a 200", address=address)
    if isinstance(meant, errors.ServerFault) and not isinstance(meant, errors.ServerOverloaded):
        meant.may_be_billed = True  # the model was at work when it failed
    return meant


def _question_about(address: str) -> str:
    """http://host → `Is it http://host/v1? `; nothing for one with a version or a query."""
    parts = urlsplit(address)  # Azure's addresses have a query, and no /v1
    if not address or parts.query or _VERSION.search(parts.path):
        return ""
    if parts.path.strip("/"):
        # of http://host/api: Ollama's isn't at /api/v1, but at /v1
        return "Should it end in /v1? "
    return f"Is it {address.rstrip('/')}/v1? "


def _codes_of(error: Any) -> str:
    """What an error has for programs, such as `insufficient_quota billing`."""
    if not isinstance(error, dict):
        return ""
    return f"{error.get('code')} {error.get('type')}"


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, MOST_CAUSES at most: a user's may name each other."""
    cause: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def is_about_content(refusal: str) -> bool:
    """Return whether a refusal is a content filter's: the endpoint itself works then."""
    return _CONTENT.search(refusal) is not None


def _seconds_to_wait(headers: Mapping[str, str], details: Sequence[JsonObject]) -> float | None:
    wait = retry_after(headers)
    if wait is not None:
        return wait
    for detail in details:
        # {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
        if str(detail.get("@type")).endswith("google.rpc.RetryInfo"):
            return _seconds_of(str(detail.get("retryDelay", "")))
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, by the first of these headers that can be read, or None."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _seconds_in(headers.get(name), unit)
        if seconds is not None:
            return seconds
    date_to_wait_for = _timestamp_of(headers.get("retry-after"))
    if date_to_wait_for is None:
        return seconds_to_reset(headers)
    now = _timestamp_of(headers.get("date"))  # by the endpoint's clock: ours may be wrong
    if now is None:
        now = time.time()
    return _bounded(date_to_wait_for - now)


def _seconds_in(text: str | None, unit: float) -> float | None:
    with suppress(ValueError):  # raised for a date, and for what is neither
        return _bounded(float(text or "") * unit)
    return None


def _timestamp_of(date: str | None) -> float | None:
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(date or "").timestamp()
    return None


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until all used-up limits are reset; None where none is used up."""
    waits = []
    for limit in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{limit}") == "0":
            wait = _seconds_of(headers.get(f"x-ratelimit-reset-{limit}", ""))
            if wait is not None:
                waits.append(wait)
    return max(waits, default=None)


def _seconds_of(text: str) -> float | None:
    """`1m30s` → 90, `120ms` → 0.12, `7` → 7; of a Unix time, the seconds until then."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
        if seconds >= FIRST_UNIX_TIME:
            seconds -= time.time()
        return _bounded(seconds)
    if not re.fullmatch(f"(?:{_TIME_AND_UNIT})+", text):  # not searched: texts may be long
        return None
    parts = re.findall(_TIME_AND_UNIT, text)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return _bounded(sum(float(number) * units[unit] for number, unit in parts))


def _bounded(seconds: float) -> float | None:
    """A server may ask for a time that is past, for infinity, or for no number."""
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST)


def _error_in(body: str) -> tuple[Any, list[JsonObject]]:
    """The error that a body states, and Google's details of it. A web page says nothing."""
    data = None
    with suppress(ValueError, RecursionError):
        data = json.loads(body)
    if data is None:
        is_page = body.lstrip().startswith("<")
        return "" if is_page else body, []
    data = _first_of(data)  # Google's OpenAI-compatible addresses answer with a list
    if not isinstance(data, dict):
        return data, []
    if "error" not in data:
        return data, []
    error = _first_of(data["error"])
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return error, []
    return error, [detail for detail in details if isinstance(detail, dict)]


def _first_of(data: Any) -> Any:
    return data[0] if isinstance(data, list) and data else data


def _message(error: Any, details: Sequence[JsonObject]) -> str:
    """`Quota exceeded (RATE_LIMIT)`: in brackets Google's reasons, else a code that is a word."""
    if not isinstance(error, dict):
        return str(error)
    words = error.get("message") or error.get("detail") or error
    words_of_provider = _words_of_provider(error)
    if words_of_provider is not None:
        words = f"{words}: {words_of_provider}"
    reasons = [str(detail["reason"]) for detail in details if "reason" in detail]
    code = ", ".join(reasons) or error.get("code") or error.get("type")
    is_word = isinstance(code, str) and not code.isdigit()  # a number is the status again
    return f"{words} ({code})" if is_word else str(words)


def _words_of_provider(error: JsonObject) -> str | None:
    """What OpenRouter's provider said, in `metadata.raw`, often as JSON."""
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if not raw:
        return None
    return _message(*_error_in(raw)) if isinstance(raw, str) else str(raw)
