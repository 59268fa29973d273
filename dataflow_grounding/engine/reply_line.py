"""A reply as it is stored, a line of JSON, and what it says."""

from collections.abc import Sequence
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
    """Return the line of a reply to a step's request, as it is stored, and read later.

    API keys that the reply repeats are blotted out. `check` says that it is the reply to a check of
    the endpoint, not to a record's request.
    """
    line: dict[str, Any] = {
        "step": step,
        "task": CHECK if check else request.task,
        "model": serving.model,
        "reply": blotted(reply.text) if isinstance(reply.text, str) else None,
        "finish_reason": blotted(reply.finish_reason),
        "usage": reply.usage.as_list(),
        "refusal": reply.refusal and blotted(reply.refusal),
    }
    # only what says something: most lines have none of these
    if request.attempt:
        line["attempt"] = request.attempt
    if request.sample:
        line["sample"] = request.sample
    if request.of:
        line["of"] = request.of
    if reply.tier:
        line["tier"] = blotted(reply.tier)
    if serving.free:
        line["free"] = serving.free
    return line


def usage_of(line: dict[str, Any]) -> Usage:
    """The tokens that the endpoint counted for a stored reply.

    All are 0 where the line has none, or what can't be counts, as lines of other versions may.
    """
    counts = line.get("usage")
    if isinstance(counts, list) and len(counts) == 3:
        return Usage(*counts).bounded()
    return Usage()


def read_lines(request: Request[T], lines: Sequence[dict[str, Any]], attempts: int) -> ReadReply[T]:
    """Return what the first of some stored replies to a request says that can be read.

    There are several where another part of the run has asked again, and was told better. Where
    none can be read, what `read_line` raises for the first one is raised.
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
    """What a stored reply says.

    Raises RecordError with `attempts` and `reply` set; RunStopped where a watch does.
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
            answer = request.read(line["reply"])
            if line.get("suspect"):
                return answer[0], [*answer[1], Note(SUSPECT, "")]
            return answer
        except RecordError as failed:
            error = failed
        except GroundingError:
            raise
        except Exception as failed:
            # a reader that took for granted what the model left out, perhaps the user's
            message = excerpt(str(failed), 200)
            why = f": {message}" if message else ""
            error = UnreadableReply(f"reading it raised {type(failed).__name__}{why}.")
    error.attempts = attempts
    error.reply = line.get("reply")
    raise error
