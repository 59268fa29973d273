"""A reply as it is stored, a line of JSON, and what it says."""

from collections.abc import Sequence
from typing import Any, TypeVar

from dataflow_grounding._util.errors import (
    ALL_THINKING,
    GroundingError,
    OperatorFailed,
    RecordError,
    RepeatedReply,
    RequestRefused,
    TruncatedReply,
    UnreadableReply,
    message_of,
)
from dataflow_grounding._util.secrets import blotted, excerpt
from dataflow_grounding._util.users_code import place_of
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.keyed_log import CHECK
from dataflow_grounding.engine.plan import SUSPECT
from dataflow_grounding.replies import Note
from dataflow_grounding.replies.forms import is_whole
from dataflow_grounding.serving.finish_reasons import CUT_OFF, is_one_of
from dataflow_grounding.serving.serving import Reply, Serving, Usage
from dataflow_grounding.tasks.grounding import Found
from dataflow_grounding.tasks.request import ReadReply, Request

T = TypeVar("T")

REFUSED_BY_ERROR = "refused"
"""The finish reason in the line of a request that the endpoint refused by an error."""


def line_of(
    step: str, request: Request[Any], serving: Serving, reply: Reply, check: bool
) -> JsonObject:
    """Return the line of a reply to a step's request, as it is stored: without API keys."""
    line: dict[str, object] = {
        "step": step,
        "task": CHECK if check else request.task,
        "model": blotted(serving.model),
        "reply": blotted(reply.text) if isinstance(reply.text, str) else None,
        "finish_reason": blotted(reply.finish_reason),
        "usage": reply.usage.as_list(),
        "refusal": reply.refusal and blotted(reply.refusal),
    }
    # only what says something: most lines have none of these
    if request.tries.unread:
        line["attempt"] = request.tries.unread
    if request.sample:
        line["sample"] = request.sample
    if request.sending.reply_group:
        line["of"] = request.sending.reply_group
    if reply.id:
        line["id"] = blotted(reply.id)
    if reply.kept:
        line["kept"] = True
    if reply.repeated:
        line["repeated"] = True
    if reply.tier:
        line["tier"] = blotted(reply.tier)
    if serving.free:
        line["free"] = serving.free
    return line


def is_refused_by_error(line: JsonObject) -> bool:
    """Return whether a line is of a request that an error refused, as older stores have them."""
    return line.get("finish_reason") == REFUSED_BY_ERROR and bool(line.get("refusal"))


def usage_of(line: JsonObject) -> Usage:
    """Return the tokens of a stored reply; 0 for what can't be a count."""
    counts = line.get("usage")
    if isinstance(counts, list) and len(counts) == 3:
        return Usage(*counts).bounded()
    return Usage()


def read_lines(request: Request[T], lines: Sequence[JsonObject], attempts: int) -> ReadReply[T]:
    """Return what the first of a request's stored replies says that can be read."""
    # there may be several, because other shards of the run have asked the same
    first_error: UnreadableReply | None = None
    texts_read: list[Any] = []
    for line in lines:
        if line.get("reply") in texts_read:  # an equal text would fail in the same way
            continue
        texts_read.append(line.get("reply"))
        try:
            return read_line(request, line, attempts)
        except UnreadableReply as failed:
            first_error = first_error or failed
    assert first_error is not None
    raise first_error


def read_line(request: Request[T], line: JsonObject, attempts: int) -> ReadReply[T]:
    """Return what a stored reply says, and notes on reading it."""
    error = _failure_in(request, line)
    if error is None:
        try:
            read_reply = request.read(line["reply"])
            if line.get("suspect"):  # a check of the box format has failed, and the run only warns
                return read_reply[0], [*read_reply[1], Note(SUSPECT, "")]
            return read_reply
        except RecordError as failed:
            error = failed
        except GroundingError:  # a RunStopped
            raise
        except Exception as failed:  # of the reader's own code, perhaps the user's
            error = _failure_of_reader(failed)
    error.attempts = attempts
    error.reply = line.get("reply")
    raise error


def _failure_of_reader(error: Exception) -> RecordError:
    if isinstance(error, (LookupError, ValueError)):
        # it took for granted what the model left out: another reply may have it
        return UnreadableReply(f"reading it raised {_described(error)}.")
    place = place_of(error)
    where = f" ({place})" if place else ""
    return OperatorFailed(f"reading the reply raised {_described(error)}{where}")


def _failure_in(request: Request[Any], line: JsonObject) -> RecordError | None:
    """Return what is wrong with a stored reply before it is read; None if it has a text."""
    text = line.get("reply")
    if line.get("repeated"):
        return RepeatedReply("a gateway's cache gave a reply that came before, and no further one")
    if line.get("refusal"):
        refused = RequestRefused(str(line["refusal"]))
        refused.passing = is_refused_by_error(line)  # nothing was paid for: the next run asks again
        return refused
    is_at_limit = is_one_of(line.get("finish_reason"), CUT_OFF)
    # some go on up to it, with blanks or words, after an answer that is whole
    if is_at_limit and not is_whole(text or "") and not _answers_all(request, text):
        written = usage_of(line).output_tokens
        if written and not (text or "").strip():  # deepseek-ai/DeepSeek-V3#1610
            return TruncatedReply(
                f"the reply is cut off before it began: {written:,} tokens went into thinking.",
                ALL_THINKING,
            )
        return TruncatedReply("the reply was cut off at the token limit.")
    if not isinstance(text, str):
        return UnreadableReply("the reply has no text.")
    return None


def _answers_all(request: Request[Any], text: Any) -> bool:
    """Whether a reply that isn't JSON has an answer for each phrase, in tags or lines."""
    try:
        answers, notes = request.read(text)
        has_end = not any(str(note).startswith("truncated") for note in notes)
    except Exception:  # it can't be read, or isn't about phrases
        return False
    if not isinstance(answers, list) or not answers:
        return False
    return has_end and all(isinstance(one, Found) and one.named for one in answers)


def _described(error: Exception) -> str:
    message = excerpt(message_of(error), 200)
    name = type(error).__name__
    return f"{name}: {message}" if message else name
