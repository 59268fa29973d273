"""What an object says that speaks against reading its empty list as "none": a fault, or that the thing is there."""

from collections.abc import Mapping
from typing import Any

from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies.absence import missing_in, only_says_none
from dataflow_grounding.replies.json_values import number

# A score from here on is that of a thing that was found.
_HIGH = 0.5


def doubt(fields: Mapping[str, Any], *, boxy: bool) -> str | None:
    """Return why an object without boxes doesn't say "none", or None if it may.

    Args:
        fields: The object's `plain_fields`.
        boxy: Whether the object is that of one thing, with a box of its own, so that a score is that thing's.
    """
    if _has_fault(fields):
        return "a fault is reported instead of boxes"
    if any(_is_yes(fields[key]) for key in keys.THERE_KEYS & fields.keys()):
        return "no box is given of what is said to be there"
    if any((number(fields[key]) or 0) > 0 for key in keys.COUNT_KEYS & fields.keys()):
        return "things are counted, and no box is given"
    if any(isinstance(fields.get(key), list) and any(fields[key]) for key in ("labels", "bboxeslabels")):
        return "labels are listed, and no box is given"
    scores = [score for key in keys.SCORE_KEYS if (score := number(fields.get(key))) is not None]
    if boxy and max(scores, default=0) >= _HIGH:
        return "a score is given, and no box"
    return None


def is_no_answer(plain: str, value: Any) -> bool:
    """Whether a message or tool call, by its key, has nothing in it: nobody has answered, or only "not found"."""
    only_none = plain == "message" and isinstance(value, str) and only_says_none(value)
    return plain in keys.ENVELOPE_KEYS and (not value or only_none)


def _has_fault(fields: Mapping[str, Any]) -> bool:
    status = fields.get("status")
    failed = isinstance(status, str) and status.strip().lower() in keys.FAILED
    if failed or any(fields.get(key) is False for key in ("success", "ok", "succeeded")):
        return True
    return any(_is_fault(fields[key]) for key in keys.FAULT_TEXT_KEYS & fields.keys())


def _is_fault(value: Any) -> bool:
    """Whether what stands under "error" is one: anything, but a sentence that says what is not in the picture."""
    if isinstance(value, str) and value.strip().lower() not in ("", "none", "null", "false", "no", "n/a"):
        return missing_in(value) is None or only_says_none(value)
    return not isinstance(value, str) and bool(value)


def _is_yes(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes"))
