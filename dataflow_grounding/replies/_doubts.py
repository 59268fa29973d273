"""What an object says beside its box or its empty list: a fault, that the thing is there, that it
is another thing.
"""

from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies._absence import missing_in, only_says_none, says_none
from dataflow_grounding.replies.json_values import number

_NO_NAME = keys.pattern("no_name")
_PLACES_BOX = keys.pattern("places_box")
_FEW_WORDS = lazy_pattern(r"[^\W\d_]+(?:[ '’-][^\W\d_]+){0,3}")
_FLAG = lazy_pattern(r"(?:is|has)[_ ]?((?:[A-Z]?[a-z]+[_ ]?){1,5})")
_WORDS = lazy_pattern(r"[A-Z]?[a-z]+")
_NAMELESS = keys.words("filler") | keys.words("which") | keys.words("qualities")
# A score from here on is that of a thing that was found.
_HIGH = 0.5


def doubt(fields: Mapping[str, Any], *, boxy: bool) -> str | None:
    """Return why an object without boxes doesn't say "none", or None if it may.

    Args:
        fields: The object's `plain_fields`.
        boxy: Whether the object is that of one thing, with a box of its own, so that a score is
            that thing's.
    """
    if _has_fault(fields):
        return "a fault is reported instead of boxes"
    if any(_is_yes(fields[key]) for key in keys.THERE_KEYS & fields.keys()):
        return "no box is given of what is said to be there"
    if any((number(fields[key]) or 0) > 0 for key in keys.COUNT_KEYS & fields.keys()):
        return "things are counted, and no box is given"
    if any(
        isinstance(fields.get(key), list) and any(fields[key]) for key in ("labels", "bboxeslabels")
    ):
        return "labels are listed, and no box is given"
    scores = [score for key in keys.SCORE_KEYS if (score := number(fields.get(key))) is not None]
    if boxy and max(scores, default=0) >= _HIGH:
        return "a score is given, and no box"
    return None


def is_no_answer(plain: str, value: Any) -> bool:
    """Whether a message or tool call, by its key, has nothing in it: nobody has answered, or only
    "not found".
    """
    only_none = plain == "message" and isinstance(value, str) and only_says_none(value)
    return plain in keys.ENVELOPE_KEYS and (not value or only_none)


def _has_fault(fields: Mapping[str, Any]) -> bool:
    status = fields.get("status")
    failed = isinstance(status, str) and status.strip().lower() in keys.FAILED
    if failed or any(fields.get(key) is False for key in ("success", "ok", "succeeded")):
        return True
    return any(_is_fault(fields[key]) for key in keys.FAULT_TEXT_KEYS & fields.keys())


def _is_fault(value: Any) -> bool:
    """Whether what stands under "error" is one: anything, but a sentence that says what is not in
    the picture.
    """
    if isinstance(value, str) and value.strip().lower() not in (
        "",
        "none",
        "null",
        "false",
        "no",
        "n/a",
    ):
        return missing_in(value) is None or only_says_none(value)
    return not isinstance(value, str) and bool(value)


def _is_yes(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes"))


def name_beside(fields: Mapping[str, Any]) -> str | None:
    """Return what an object calls its box's thing under a key that isn't known, as "animal" and
    "species" are.
    """
    for key, item in fields.items():
        if _NO_NAME.search(key) or key in keys.IMAGE_SIZE_KEYS or key in keys.BOX_KEYS:
            continue
        if isinstance(item, dict) and not any(
            plain in keys.BOX_KEYS for plain in map(keys.plain_key, item)
        ):
            item = next(
                (item[plain] for plain in keys.LABEL_KEYS if isinstance(item.get(plain), str)), None
            )
        if (
            isinstance(item, str)
            and _FEW_WORDS.fullmatch(item.strip())
            and not _NAMELESS.issuperset(item.lower().split())
        ):
            return item.strip()
    return None


def remarks_of(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words in an object that may say that its box isn't the thing's: comments, and
    `"is_cat": false`.
    """
    remarks: list[str] = []
    for key, item in value.items():
        plain = keys.plain_key(key)
        flag = _FLAG.fullmatch(key) if is_no(item) else None
        if flag is not None:
            remarks.append("not a " + " ".join(_WORDS.findall(flag[1])).lower())
        elif (
            isinstance(item, str)
            and plain not in keys.LABEL_KEYS
            and plain not in keys.BOX_KEYS
            and " " in item
        ):
            remarks.append(item[:400])
    return tuple(remarks)


def places_box(key: str) -> bool:
    """Whether a key says that what is under it is the box, or boxes, of the thing that the object
    around it names.
    """
    plain = keys.plain_key(key)
    return plain in keys.WRAPPERS or plain in keys.BOX_KEYS or _PLACES_BOX.search(plain) is not None


def says_absent(fields: Mapping[str, Any]) -> bool:
    """Whether an object says that its thing is not there, under a key such as "found"
    or "status".
    """
    if any(_is_yes(fields[key]) for key in keys.ABSENT_KEYS & fields.keys()):
        return True
    return any(is_no(fields[key]) for key in keys.FOUND_KEYS & fields.keys()) or is_no(
        fields.get("status") or None
    )


def is_no(value: Any) -> bool:
    """Whether a value says no: false, 0, "no", or words for none."""
    if isinstance(value, str):
        return value.strip().lower() in ("false", "no", "0") or says_none(value.replace("_", " "))
    return value is False or (type(value) is int and value == 0)
