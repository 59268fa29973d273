"""A reply as it is stored, a line of JSON, and what it says."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, TypeVar

from dataflow_grounding._util.errors import (
    GroundingError,
    RecordError,
    RequestRefused,
    SuspectReply,
    TruncatedReply,
    UnreadableReply,
)
from dataflow_grounding._util.secrets import blotted, excerpt
from dataflow_grounding.engine.keyed_log import CHECK
from dataflow_grounding.engine.plan import SUSPECT
from dataflow_grounding.replies import Note
from dataflow_grounding.serving.base import Reply, Serving, Usage
from dataflow_grounding.tasks.request import ReadReply, Request

T = TypeVar("T")


def line_of(
    step: str, request: Request[Any], serving: Serving, reply: Reply, check: bool
) -> dict[str, Any]:
    """A step's reply as it is stored, then read: without the keys that it repeats. That to a
    `check` says it is one.
    """
    line: dict[str, Any] = {
        "step": step,
        "task": CHECK if check else request.task,
        "model": serving.model,
    }
    line["reply"] = blotted(reply.text) if isinstance(reply.text, str) else None
    line |= {"finish_reason": blotted(reply.finish_reason), "usage": list(astuple(reply.usage))}
    line["refusal"] = reply.refusal and blotted(reply.refusal)
    again = {
        "attempt": request.attempt,
        "sample": request.sample,
        "of": request.of,
        "free": serving.free,
    }
    return {**line, **{name: value for name, value in again.items() if value}}


def usage_of(line: dict[str, Any]) -> Usage:
    """The tokens that the endpoint counted for a stored reply; none where they can't be: other
    versions stored any.
    """
    counts = line.get("usage")
    return Usage(*counts).bounded() if isinstance(counts, list) and len(counts) == 3 else Usage()


def read_lines(request: Request[T], lines: Sequence[dict[str, Any]], attempts: int) -> ReadReply[T]:
    """What the first of some replies says that can be read: another part of the run may have asked
    again, and was told better. Raises as `read_line`, for the first.
    """
    error: UnreadableReply | None = None
    seen: list[Any] = []
    for line in lines:
        if line.get("reply") in seen:
            continue
        seen.append(line.get("reply"))
        try:
            return read_line(request, line, attempts)
        except SuspectReply:  # it can be read: whoever reads it wants to ask again
            raise
        except UnreadableReply as failed:
            error = error or failed
    assert error is not None
    raise error


def read_line(request: Request[T], line: dict[str, Any], attempts: int) -> ReadReply[T]:
    """What a stored reply says. Raises RecordError with `attempts` and `reply` set; RunStopped
    where a watch does.
    """
    error: RecordError
    if line.get("refusal"):
        error = RequestRefused(str(line["refusal"]))
    elif line.get("finish_reason") in ("length", "MAX_TOKENS", "max_tokens"):
        error = TruncatedReply("the reply was cut off at the token limit.")
    elif not isinstance(line.get("reply"), str):
        error = UnreadableReply("the reply has no text.")
    else:
        try:
            found = request.read(line["reply"])
            return (found[0], [*found[1], Note(SUSPECT, "")]) if line.get("suspect") else found
        except RecordError as failed:
            error = failed
        except GroundingError:
            raise
        except Exception as failed:
            # a reader that took for granted what the model left out, perhaps the user's
            said = excerpt(str(failed), 200)
            error = UnreadableReply(
                f"reading it raised {type(failed).__name__}" + (f": {said}." if said else ".")
            )
    error.attempts, error.reply = attempts, line.get("reply")
    raise error
