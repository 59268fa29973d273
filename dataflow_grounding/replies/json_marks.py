"""Boxes and points in parsed JSON, whatever its keys and nesting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dataflow_grounding.replies.json_keys import (
    BOX_KEYS,
    CORNER_PAIRS,
    CORNERS,
    FOUND_KEYS,
    ID_KEYS,
    LABEL_KEYS,
    LABEL_LIST_KEYS,
    POINT_KEYS,
    QUAD_KEYS,
    SCORE_KEYS,
    SIZE_BOX_KEYS,
    WRAPPERS,
    plain_key,
)
from dataflow_grounding.replies.json_text import JsonObject, find_json
from dataflow_grounding.replies.marks import NOTHING_SAID, Mark, Marks, Said, number, says_none

_TAGS = re.compile(r"</?\w{1,20}>|<\|\w{1,20}\|>")
_PAIR_KEYS = frozenset(key for pair in CORNER_PAIRS for key in pair)
_BRACKETED = re.compile(r"\s*[\[({<]*\s*([-+\d.eE,;\s]+?)\s*[\])}>]*\s*")


def read_value(value: Any, marks: Marks, key: str, said: Said = NOTHING_SAID) -> None:
    """Add to `marks` every box and point in one parsed array or object; `key` is the box key that was asked for."""
    _Walk(marks, plain_key(key)).value(value, said, boxy=False)


class _Walk:
    def __init__(self, marks: Marks, key: str) -> None:
        self.marks = marks
        self.box_keys = BOX_KEYS | {key}

    def value(self, value: Any, said: Said, *, boxy: bool, quad: bool = False) -> None:
        if isinstance(value, JsonObject):
            self.object(value, said, boxy=boxy)
        elif isinstance(value, list):
            self.array(value, said, boxy=boxy, quad=quad)
        elif boxy and value is None:
            self.marks.absent += 1
        elif boxy and isinstance(value, str):
            self.box_string(value, said)

    def box_string(self, text: str, said: Said) -> None:
        if not text.strip() or says_none(text):
            self.marks.absent += 1
            return
        match = _BRACKETED.fullmatch(_TAGS.sub("", text)) if len(text) < 200 else None
        if match is not None:
            self.marks.add(re.split(r"[,;\s]+", match[1].strip(",; ")), said)
        else:
            self.marks.drop(f"a box that is no list of numbers: {text[:60]!r}", said)

    def array(self, items: list[Any], said: Said, *, boxy: bool, quad: bool = False) -> None:
        if not items or (boxy and all(item is None for item in items)):
            self.marks.absent += 1
            return
        kinds = ["n" if number(item) is not None else "s" if isinstance(item, str) else "o" for item in items]
        numbers = [item for item, kind in zip(items, kinds, strict=True) if kind == "n"]
        strings = tuple(item.strip() for item, kind in zip(items, kinds, strict=True) if kind == "s" and item.strip())
        if len(numbers) >= 2 and "n" * len(numbers) in "".join(kinds) and "o" not in kinds:
            self.marks.add(numbers, Said(strings).within(said), quad=quad)
        elif len(numbers) >= 2 or (numbers and boxy):
            self.marks.add([item for item in items if not isinstance(item, (list, dict))], said)
            for item in items:  # where a list was never closed, what follows it stands in it
                if isinstance(item, (list, dict)):
                    self.value(item, NOTHING_SAID, boxy=False)
        elif boxy and _are_pairs(items):
            flat = [value for pair in items for value in pair]
            self.marks.add(flat, said, corners=True, quad=True)
        else:
            self.mixed(items, said, boxy=boxy, quad=quad)

    def mixed(self, items: list[Any], said: Said, *, boxy: bool, quad: bool) -> None:
        label: tuple[str, ...] = ()
        before = self.marks.size
        for item in items:
            if isinstance(item, str):
                label = (item.strip(),)
            elif isinstance(item, (list, dict)):
                self.value(item, Said(label).within(said), boxy=boxy, quad=quad)
                label = ()
        if boxy and self.marks.size == before:
            self.marks.drop("a box that is no list of numbers", said)

    def object(self, value: JsonObject, outer: Said, *, boxy: bool) -> None:
        if value.parts:
            said = outer
            for part in value.parts:  # a part that names nothing goes on with what the one before it named
                own = _said(part, {plain_key(key): item for key, item in part.items()})
                said = own.within(outer) if own.labels or own.id is not None else said
                self.object(part, said, boxy=boxy)
            return
        if not value and not value.loose:
            self.marks.absent += 1
            return
        fields = {plain_key(key): item for key, item in value.items()}
        self.statuses(fields)
        said = _said(value, fields).within(outer)
        if any(fields.get(key) is False for key in FOUND_KEYS):
            self.marks.absent += 1
            return
        used = self.named(fields, said)
        for key, item in value.items():
            plain = plain_key(key)
            if plain in self.box_keys or plain in QUAD_KEYS or plain in SIZE_BOX_KEYS:
                used |= self.box_field(plain, item, fields, said)
            elif plain in POINT_KEYS and isinstance(item, (list, dict)):
                self.value(item, said, boxy=False)
                used = True
        self.children(value, fields, said, has_box=used)
        for item in value.loose:
            self.value(item, NOTHING_SAID, boxy=False)

    def box_field(self, plain: str, item: Any, fields: dict[str, Any], said: Said) -> bool:
        if plain in ("location", "position", "region") and (
            item is None or (isinstance(item, str) and not re.search(r"\d", item))
        ):
            return False  # words such as "top left" describe and mark nothing
        since = len(self.marks.boxes)
        self.value(item, said, boxy=True, quad=plain in QUAD_KEYS)
        if plain in SIZE_BOX_KEYS:
            self.marks.boxes[since:] = [Mark("box", m.numbers, m.said, "xywh") for m in self.marks.boxes[since:]]
        self.lists_beside(fields, since)
        return True

    def lists_beside(self, fields: dict[str, Any], since: int) -> None:
        """Take lists of labels, scores and ids that stand beside a list of boxes, entry by entry."""
        count = len(self.marks.boxes) - since
        lists = {key: item for key, item in fields.items() if isinstance(item, list) and item}
        texts = {key: item for key, item in lists.items() if all(isinstance(entry, str) for entry in item)}
        labels = next((texts[key] for key in LABEL_LIST_KEYS if key in texts), None)
        if labels is None and count > 1:
            labels = next((item for item in texts.values() if len(item) == count), None)
        if labels is not None and len(labels) != count:
            self.marks.notes.append("labels_ignored: the lists of boxes and labels differ in length")
        elif labels is not None:
            self.marks.say(since, labels=[(text.strip(),) for text in labels])
        for key, item in lists.items():
            if len(item) == count and key in ("scores", "confidences", "confidence", "score"):
                self.marks.say(since, score=item)
            if len(item) == count and key in ("ids", "phraseids") and all(type(entry) is int for entry in item):
                self.marks.say(since, id=item)

    def named(self, fields: dict[str, Any], said: Said) -> bool:
        for names, order in CORNERS:
            if all(name in fields for name in names):
                numbers = [number(fields[name]) for name in names]
                if None in numbers:
                    self.marks.add([fields[name] for name in names], said)
                else:
                    kept = tuple(value for value in numbers if value is not None)
                    self.marks.boxes.append(Mark("box", kept, said, order))
                return True
        for first, last in CORNER_PAIRS:
            if first in fields and last in fields:
                pairs = [_pair(fields[first]), _pair(fields[last])]
                if pairs[0] and pairs[1]:
                    by_name = isinstance(fields[first], dict)
                    numbers_of = (*pairs[0], *pairs[1])
                    self.marks.boxes.append(Mark("box", numbers_of, said, "xyxy" if by_name else None))
                    return True
        if "x" in fields and "y" in fields:
            point = _pair(JsonObject([("x", fields["x"]), ("y", fields["y"])]))
            if point:
                self.marks.points.append(Mark("point", point, said, "xyxy"))
                return True
        return False

    def children(self, value: JsonObject, fields: dict[str, Any], said: Said, *, has_box: bool) -> None:
        """Go into what an object holds beside its own box; a key that is no known word is the label of what it holds."""
        own = bool(_said(value, fields).labels) or has_box
        talks = any(isinstance(item, str) and not says_none(item) for item in value.values())
        before = self.marks.size
        for key, item in value.items():
            plain = plain_key(key)
            skip = (
                plain in self.box_keys
                or plain in QUAD_KEYS
                or plain in SIZE_BOX_KEYS
                or plain in POINT_KEYS
                or plain in _PAIR_KEYS
            )
            if skip or plain in ("statuses", "image", "imagesize") or (own and plain in LABEL_KEYS):
                continue
            item = _decoded(item)
            if own:  # of a detection: only further detections in it, never its colours or sizes
                if isinstance(item, JsonObject) or (
                    isinstance(item, list) and any(isinstance(i, JsonObject) for i in item)
                ):
                    self.value(item, NOTHING_SAID if has_box else said, boxy=False)
            elif plain in WRAPPERS:
                self.marks.absent += item is None or (isinstance(item, str) and says_none(item))
                self.value(item, said, boxy=False)
            elif isinstance(item, (list, dict)) or (item is None and not talks):
                inner = Said(id=int(key)) if re.fullmatch(r"\s*\d{1,9}\s*", key) else Said((key.strip(),))
                self.value(item, inner.within(said), boxy=not isinstance(item, dict))
            elif isinstance(item, str) and (says_none(item) or (_BRACKETED.fullmatch(item[:200]) and "," in item)):
                self.box_string(item, Said((key.strip(),)).within(said))
        if own and not has_box and self.marks.size == before and not isinstance(fields.get("statuses"), list):
            self.marks.drop(f"an object without a box: {said.labels[0][:60]!r}", said)

    def statuses(self, fields: dict[str, Any]) -> None:
        entries = fields.get("statuses")
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("status"), str):
                self.marks.statuses[entry["id"]] = entry["status"]
                if isinstance(entry.get("reason"), str):
                    self.marks.reasons[entry["id"]] = entry["reason"]


def _said(value: JsonObject, fields: dict[str, Any]) -> Said:
    labels = [fields[key] for key in LABEL_KEYS if key in fields]
    labels += [item for key, item in fields.items() if key.startswith(("name", "label")) and key not in LABEL_KEYS]
    texts: list[str] = []
    for label in labels:
        if isinstance(label, dict):
            inner = sorted((i for i in label.items() if isinstance(i[1], str)), key=lambda i: i[0] != "en")
            texts += [text for _, text in inner]
        elif isinstance(label, str):
            texts.append(label)
    texts += [item for item in value.loose if isinstance(item, str)]
    named = next((fields[key] for key in ID_KEYS if number(fields.get(key)) is not None), None)
    score = next((fields[key] for key in SCORE_KEYS if fields.get(key) is not None), None)
    evidence = fields.get("evidence")
    as_number = number(named)
    return Said(
        tuple(dict.fromkeys(text.strip() for text in texts if text.strip())),
        int(as_number) if as_number is not None and as_number == int(as_number) else None,
        score,
        evidence if evidence in ("seen", "inferred", "region") else None,
    )


def _decoded(value: Any) -> Any:
    """Return what a string of JSON holds, as in the arguments of a tool call; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    scan = find_json(value)
    return scan.found[0].value if len(scan.found) == 1 and isinstance(scan.found[0].value, JsonObject) else value


def _are_pairs(items: Sequence[Any]) -> bool:
    return len(items) in (2, 4) and all(is_pair(item) for item in items)


def is_pair(value: Any) -> bool:
    """Whether a value is an array of two numbers."""
    return isinstance(value, list) and _pair(value) is not None


def _pair(value: Any) -> tuple[float, float] | None:
    if isinstance(value, dict):
        fields = {plain_key(key): item for key, item in value.items()}
        value = [fields.get("x"), fields.get("y")]
    if not isinstance(value, list) or len(value) != 2:
        return None
    x, y = number(value[0]), number(value[1])
    return None if x is None or y is None else (x, y)
