"""What the key of a value next to boxes says of them: `visible`, `crop_offset`, `actual_object`."""

from typing import Any

from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.replies.harm_words import words_listed

_KEY_WORD = lazy_pattern(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def key_words(key: str) -> list[str]:
    """Return a key's words in lower case: two of `imageWidth` and of `image_width`."""
    return [word.lower() for word in _KEY_WORD.findall(key)]


def key_changes(key: str, value: Any = None) -> bool:
    """Whether a key names something that changes what the box next to it means."""
    words = key_words(key)
    if isinstance(value, str):
        words = words[-1:]  # which say what a text is: `page_title` is a title
    if words[:1] in (["not"], ["no"]):
        return False  # "not_cropped"
    return not words_listed("changing").isdisjoint(words)


def key_states(key: str) -> bool:
    """Whether a key states something of a box format, and nothing else: `coordinate_format`."""
    words = key_words(key)
    return bool(words) and words_listed("stating").issuperset(words) and key_changes(key)


def key_affirms(key: str) -> bool:
    """Whether the truth of a key says that a box is right: `is_correct`."""
    return not words_listed("says_so").isdisjoint(key_words(key))


def key_denies(key: str, truth: bool) -> bool:
    """Whether `visible: false`, `not_visible: true` or `estimated: true` makes a box useless."""
    words = key_words(key)
    if not words_listed("degrees").isdisjoint(words):
        return False  # "fully_visible": false
    if words[:1] in (["not"], ["no"]):  # "not_visible": true says "visible": false
        words = words[1:]
        truth = not truth
    says = "says_not" if truth else "says_so"
    return not words_listed(says).isdisjoint(words)


def key_says_cut(key: str, truth: bool) -> bool:
    """Whether this truth under a key says that a list goes on: `has_more: true`."""
    words = set(key_words(key))
    saying = words_listed("says_cut" if truth else "says_whole")
    return not saying.isdisjoint(words) and words <= saying | words_listed("of_answer")


def names_another(key: str) -> bool:
    """Whether a key names what a box is of instead: `actual_object`, `bbox_of`."""
    words = key_words(key)
    if words[:1] == ["refers"]:  # "refers_to"
        return True
    # So "actual_object_" begins with the name "actual_", and "actuals_" doesn't.
    joined = "_".join([*words, ""])
    return any(joined.startswith(f"{name}_") for name in words_listed("names_another"))
