"""What an object says beside its box or its empty list: a fault, say, or another thing."""

from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies import vocabulary as keys
from dataflow_grounding.replies._absence import missing_in, only_says_none, says_none
from dataflow_grounding.replies.json_values import number

_NO_NAME = keys.pattern("no_name")  # in keys under which no name stands: "color", "status"
_PLACES_BOX = keys.pattern("places_box")  # in keys under which a thing's box stands: "boundary"
_FEW_WORDS = lazy_pattern(r"[^\W\d_]+(?:[ '’-][^\W\d_]+){0,3}")
# Up to five words of a key: "red_car", "RedCar". Where one ends, only one thing can follow, so that
# a hostile key takes no time.
_WORDS_OF_KEY = r"([A-Z]?[a-z]+(?:[_ ]?[A-Z][a-z]+|[_ ][a-z]+){0,4}?)"
_IS_THERE = (
    r"[_ ]?(?:[Ii]s[_ ]?)?(?:[Pp]resent|[Ff]ound|[Vv]isible|[Dd]etected|[Ee]xists"
    r"|[Ii]n[_ ]?(?:[Ii]mage|[Pp]icture|[Ss]cene))"
)
# A key that is a flag: "is_cat", "hasRedCar", "cat_present", "is_cat_visible". One of the groups is
# its thing.
_FLAG = lazy_pattern(
    rf"(?:is|has|contains)[_ ]?{_WORDS_OF_KEY}(?:{_IS_THERE})?|{_WORDS_OF_KEY}{_IS_THERE}"
)
# The same, of what is not there: "cat_absent", "no_cat".
_FLAG_OF_ABSENCE = lazy_pattern(
    rf"{_WORDS_OF_KEY}[_ ]?(?:[Ii]s[_ ]?)?(?:[Aa]bsent|[Mm]issing)|no[_ ]{_WORDS_OF_KEY}"
)
# With one of these, a flag is about more than the thing: "whole_cat_visible", "other_cat_present".
_OF_MORE = keys.words("of_more")
_VERDICT_OF_NO = keys.pattern("verdict_of_no")  # "no, it is a fox", "rejected"
_WORDS = lazy_pattern(r"[A-Z]?[a-z]+")  # the words of "RedCar"
# Words that name no thing.
_NAMELESS = keys.words("filler") | keys.words("which") | keys.QUALITIES
# A score from here on is that of a thing that was found.
_HIGH = 0.5
_LONGEST_REMARK = 400  # characters of a comment that are kept
# Under "error" these say that there is none.
_NO_ERROR = frozenset(["", "none", "null", "false", "no", "n/a"])


def doubt_about(fields: Mapping[str, Any], *, of_one_thing: bool) -> str | None:
    """Return why an object without boxes may not mean "none"; None where nothing speaks against it.

    Against it speak a fault, a word that something is there, a count above 0, labels, and a score.

    Args:
        fields: The object's `plain_fields`.
        of_one_thing: Whether the object describes one thing, so that a score in it is that thing's.
    """
    if _has_fault(fields):
        return "a fault is reported instead of boxes"
    if any(_is_yes(fields[key]) for key in keys.THERE_KEYS & fields.keys()):
        return "no box is given of what is said to be there"
    for key in keys.COUNT_KEYS & fields.keys():
        count = number(fields[key])
        if count is not None and count > 0:
            return "things are counted, and no box is given"
    for key in ("labels", "bboxeslabels"):
        labels = fields.get(key)
        if isinstance(labels, list) and any(labels):
            return "labels are listed, and no box is given"
    if of_one_thing and _has_high_score(fields):
        return "a score is given, and no box"
    return None


def _has_high_score(fields: Mapping[str, Any]) -> bool:
    """Whether any score of an object is `_HIGH` or more, as that of a thing that was found."""
    for key in keys.SCORE_KEYS:
        score = number(fields.get(key))
        if score is not None and score >= _HIGH:
            return True
    return False


def is_no_answer(plain: str, value: Any) -> bool:
    """Whether a value under the key of a message or tool call has nothing in it.

    Nor is "not found" as a message an answer. `plain` is the key, as keys are compared; under other
    keys, false.
    """
    if plain not in keys.ENVELOPE_KEYS:
        return False
    if not value:
        return True
    return plain == "message" and isinstance(value, str) and only_says_none(value)


def _has_fault(fields: Mapping[str, Any]) -> bool:
    """Whether an object's status, a flag such as "success", or an "error" reports a fault."""
    status = fields.get("status")
    if isinstance(status, str) and status.strip().lower() in keys.FAILED:
        return True
    if any(fields.get(key) is False for key in ("success", "ok", "succeeded")):
        return True
    return any(_is_fault(fields[key]) for key in keys.FAULT_TEXT_KEYS & fields.keys())


def _is_fault(value: Any) -> bool:
    """Whether a value under a key such as "error" reports a fault.

    Any value does that isn't empty or a word such as "none", but for a sentence that names what is
    not in the picture, as "no cat found".
    """
    if not isinstance(value, str):
        return bool(value)
    if value.strip().lower() in _NO_ERROR:
        return False
    return missing_in(value) is None or only_says_none(value)


def _is_yes(value: Any) -> bool:
    """Whether a value says yes: true, or a word for it."""
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes"))


def name_beside(fields: Mapping[str, Any]) -> str | None:
    """Return the name of its box's thing that an object has under a key that isn't known.

    Such keys are "animal" and "species". Under them stands a name of few words, or an object with
    one under a key for a label. None where there is none; else the first.
    """
    for key, item in fields.items():
        if _NO_NAME.search(key) or key in keys.IMAGE_SIZE_KEYS or key in keys.BOX_KEYS:
            continue
        if isinstance(item, dict) and not _has_box_key(item):
            item = _first_label(item)
        if isinstance(item, str) and _is_name(item):
            return item.strip()
    return None


def _has_box_key(value: Mapping[str, Any]) -> bool:
    """Whether an object has a key for a box."""
    return any(keys.plain_key(key) in keys.BOX_KEYS for key in value)


def _first_label(value: Mapping[str, Any]) -> str | None:
    """Return the text under the first key for a label that has one."""
    for key in keys.LABEL_KEYS:
        label = value.get(key)
        if isinstance(label, str):
            return label
    return None


def _is_name(text: str) -> bool:
    """Whether a text is one to four words that can name a thing."""
    few_words = _FEW_WORDS.fullmatch(text.strip()) is not None
    return few_words and not _NAMELESS.issuperset(text.lower().split())


def remarks_of(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the words in an object that may say that its box isn't the thing's.

    These are texts of several words that are no label or box; flags such as `"is_cat": false`,
    which becomes "not a cat"; and an answer such as "no", which becomes words for that.
    """
    remarks: list[str] = []
    asks_something = "question" in value  # to which an answer may be about another thing
    for key, item in value.items():
        thing = _thing_denied_by(key, item)
        if thing:
            remarks.append(f"not a {thing}")
        elif (
            keys.plain_key(key) in keys.VERDICT_KEYS
            and not asks_something
            and _is_verdict_of_no(item)
        ):
            remarks.append("that is not it")
        elif isinstance(item, str) and " " in item:
            plain = keys.plain_key(key)
            if plain not in keys.LABEL_KEYS and plain not in keys.BOX_KEYS:
                remarks.append(item[:_LONGEST_REMARK])
    return tuple(remarks)


def _thing_denied_by(key: str, value: Any) -> str:
    """Return the thing that a flag says is not there, in lower case; "" for any other field."""
    flag = None
    name = key.lower() if key.isupper() else key
    if is_no(value):
        flag = _FLAG.fullmatch(name)
    elif _is_yes(value):
        flag = _FLAG_OF_ABSENCE.fullmatch(name)
    if flag is None:
        return ""
    words = [word.lower() for word in _WORDS.findall(flag[1] or flag[2])]
    return "" if _OF_MORE.intersection(words) else " ".join(words)


def _is_verdict_of_no(value: Any) -> bool:
    """Whether a text says no: "no", "No.", "no, it is a fox", "absent"."""
    if not isinstance(value, str):
        return False
    return is_no(value) or _VERDICT_OF_NO.fullmatch(value.strip()) is not None


def places_box(key: str) -> bool:
    """Whether a key says that under it is the box of what the object around it names."""
    plain = keys.plain_key(key)
    return plain in keys.WRAPPERS or plain in keys.BOX_KEYS or _PLACES_BOX.search(plain) is not None


def says_absent(fields: Mapping[str, Any]) -> bool:
    """Whether an object says that its thing is not there: `"missing": true`, `"found": false`.

    Or its status is a word such as "absent".
    """
    if any(_is_yes(fields[key]) for key in keys.ABSENT_KEYS & fields.keys()):
        return True
    if any(is_no(fields[key]) for key in keys.FOUND_KEYS & fields.keys()):
        return True
    return is_no(fields.get("status") or None)


def is_no(value: Any) -> bool:
    """Whether a value says no: false, 0, "no", or words for none."""
    if isinstance(value, str):
        return value.strip().lower() in ("false", "no", "0") or says_none(value.replace("_", " "))
    return type(value) in (bool, int) and value == 0
