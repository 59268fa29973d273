"""Reading the JSON object that a task other than grounding asked for."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies.answer_text import answers_of
from dataflow_grounding.replies.json_keys import plain_key
from dataflow_grounding.replies.json_text import find_json
from dataflow_grounding.replies.json_values import Scan


def read_object(reply: str, *, required: str) -> tuple[dict[str, Any], list[str]]:
    """Read the JSON object that a task other than grounding asked for, tolerating what `read_boxes` tolerates.

    Args:
        reply: The reply's text.
        required: The key that the object has to have. If several objects have it, the last one counts; one within another
            object or in a list of one is found too. A bare list, or items without their list, become `{required: [...]}`.

    Returns:
        The object, and notes that begin with truncated, repaired_json or wrapped.

    Raises:
        UnreadableReply: No object has the key.
        TruncatedReply: The reply is cut off before one could.

    Example:
        >>> read_object("Sure: {'caption': 'A cat.'}", required="caption")
        ({'caption': 'A cat.'}, ['repaired_json: the reply is not quite JSON'])
    """
    answers = answers_of(reply)[::-1]
    scans = [find_json(text) for answer in answers for text in [*answer.blocks, answer.text]]
    truncated = any(scan.truncated for scan in scans)
    for find in (_with_key, _wrapped):
        for scan in scans:
            found = find(scan, required)
            if found is not None:
                return found, _notes(scan, wrapped=find is _wrapped)
    if truncated:
        raise TruncatedReply(f"the reply is cut off before its {required!r}")
    if any(scan.found for scan in scans):
        raise UnreadableReply(f"the JSON in the reply has no {required!r}")
    raise UnreadableReply(f"there is no JSON in the reply: it begins {' '.join(answers[0].text[:200].split())[:60]!r}")


def _notes(scan: Scan, *, wrapped: bool) -> list[str]:
    notes = ["truncated: the reply ends inside its JSON"] if scan.truncated else []
    if scan.repaired and not scan.truncated:
        notes.append("repaired_json: the reply is not quite JSON")
    if wrapped:
        notes.append("wrapped: the items came without the object around them")
    return notes


def _with_key(scan: Scan, required: str) -> dict[str, Any] | None:
    level: list[Any] = [item.value for item in scan.found]
    for _ in range(3):
        for value in reversed(level):
            if isinstance(value, dict):
                for key in value:
                    if key == required or plain_key(key) == plain_key(required):
                        return {**{k: v for k, v in value.items() if k != key}, required: value[key]}
        children = [
            list(value.values()) if isinstance(value, dict) else value
            for value in level
            if isinstance(value, (dict, list))
        ]
        level = [child for group in children if len(group) <= 8 for child in group if isinstance(child, (dict, list))]
    return None


def _wrapped(scan: Scan, required: str) -> dict[str, Any] | None:
    lists = [item.value for item in scan.found if isinstance(item.value, list)]
    for items in reversed(lists):
        if all(isinstance(item, dict) for item in items) or all(isinstance(item, str) for item in items):
            return {required: items}
    objects = [item.value for item in scan.found if isinstance(item.value, dict)]
    if objects and all("id" in item or "text" in item for item in objects):
        return {required: objects}
    return None
