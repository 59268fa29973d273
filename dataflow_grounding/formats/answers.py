"""Answers about one phrase, with its boxes, as a model is trained to write them: as JSON, or in a family's tags."""

import html
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.geometry import Bbox, Size
from dataflow_grounding.records import dump_text, is_box

TAGS = {  # family → how it writes a phrase, all of its boxes, and one of them, and what stands between boxes
    "qwen2-vl": ("<|object_ref_start|>{}<|object_ref_end|>", "{}", "<|box_start|>({},{}),({},{})<|box_end|>", ""),
    "internvl": ("<ref>{}</ref>", "<box>[{}]</box>", "[{}, {}, {}, {}]", ", "),
    "ms-swift": ("<ref-object>", "{}", "<bbox>", ""),
}
TAGGED = re.compile(r"(?:(?<=<ref>)|(?<=<\|object_ref_start\|>)).*?(?=</ref>|<\|object_ref_end\|>)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def as_json(key: str, phrase: str, fours: Sequence[Sequence[float]]) -> str:
    """A list of objects with the numbers of a box under `key`."""
    return dump_text([{key: four, "label": phrase} for four in fours])


def as_tags(phrase: str, fours: Sequence[Sequence[float]], family: str = "qwen2-vl") -> str:
    """The phrase and its boxes in a family's tags."""
    ref, every, one, between = TAGS[family]
    return ref.format(phrase) + every.format(between.join(one.format(*four) for four in fours))


def phrase_of(question: str) -> str:
    """What a question asks for: in its tags, else behind its colon, else all of it."""
    plain = question.replace("<image>", "")
    tagged = TAGGED.search(question) if "<" in plain else None
    return tagged[0] if tagged else (plain.partition(":")[2].strip() or plain.strip())


def plain_boxes(text: str, phrase: str, numbers: BoxFormat, size: Size, sent: Size) -> list[Bbox]:
    """The boxes of an answer written as it is here, as most are, all inside; none of another, a reply like any."""
    fours: list[list[float]] = []
    with suppress(ValueError, TypeError, KeyError):
        if text.startswith("[{"):
            fours = [one[numbers.key] for one in json.loads(text)]
        elif numbers.name == "qwen2-vl":  # others' tags mean their own numbers
            found = json.loads(f"[{','.join(_NUMBER.findall(text.rpartition('<|object_ref_end|>')[2]))}]")
            fours = [found[at : at + 4] for at in range(0, len(found), 4)]
    if not all(map(is_box, fours)):
        return []
    if text != (as_json(numbers.key, phrase, fours) if text.startswith("[") else as_tags(phrase, fours)):
        return []
    boxes = [numbers.to_pixels(four, original=size, sent=sent) for four in fours]
    return boxes if are_inside(boxes, size) and html.unescape(phrase) == phrase else []


def are_inside(boxes: Sequence[Any], size: Size) -> bool:
    """Whether all are x1, y1, x2, y2 of boxes with an area in a picture of that size."""
    with suppress(ValueError, TypeError):
        return all(0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1] for x1, y1, x2, y2 in boxes)
    return False
