"""What all dialects read of a request, and what its errors become."""

from typing import Any

from aiohttp import web

from dataflow_grounding._util import errors
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.data.records import parse_line
from dataflow_grounding.serve.pictures import WrongRequest

MOST_PHRASES = 1000  # of one picture
AGAIN_SECONDS = 5  # after which to try again what may pass
_STATUSES: dict[type[GroundingError], int] = {  # the first that fits counts
    errors.RunStopped: 503,
    errors.ServerFault: 503,
    errors.MachineBusy: 503,
    errors.UnreadableReply: 502,  # the endpoint's answer is no use
    errors.RequestRefused: 502,
    errors.OperatorFailed: 500,
    errors.RecordError: 400,  # the picture is no good
    errors.InputError: 400,
}


def status_of(error: GroundingError) -> tuple[int, float | None]:
    """Return the status that tells a client of an error, and when to try again, in seconds."""
    if isinstance(error, WrongRequest):
        return error.status, None
    status = next((_STATUSES[kind] for kind in _STATUSES if isinstance(error, kind)), 500)
    if status == 503 and isinstance(error, errors.RecordError):
        return status, getattr(error, "retry_after", None) or AGAIN_SECONDS
    return status, None


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises WrongRequest."""
    if request.content_type != "application/json":
        kind = request.content_type
        raise WrongRequest(f"the content type should be application/json, not {kind}", 415)
    try:
        return parse_line(await request.read())
    except (ValueError, GroundingError):
        raise WrongRequest("the body is no JSON object") from None


def phrases_of(value: Any) -> list[str]:
    """Return phrases as they were sent, without blanks at their ends. Raises WrongRequest."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_PHRASES:
        wanted = f"a list of 1 to {MOST_PHRASES} texts that say what to look for"
        raise WrongRequest(f"`phrases` should be {wanted}")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise WrongRequest(f"{text!r:.40} of `phrases` is no text that says what to look for")
    return [text.strip() for text in texts]
