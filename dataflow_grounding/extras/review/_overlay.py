"""What reviewers said of a record, laid over what a pipeline said of it; changes of an expression,
and its version.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.boxes.geometry import area, box_of, iou
from dataflow_grounding.data.records import (
    STATUSES,
    Record,
    annotated_column,
    expression_id,
    is_box,
)
from dataflow_grounding.extras.evaluation.metrics.annotations import is_span
from dataflow_grounding.extras.review._record_view import Expression, caption_of, expressions_of

_OF_THE_TEXT = ("noun_chunk", "caption_span")  # what holds no longer for another text
# nor for another box
_OF_THE_NUMBERS = ("zoomed", "area", "segmentation", "mask", "polygon", "keypoints")


class Truth(NamedTuple):
    """How a reviewer left an expression (None: deleted), how it was before (None: added), where its
    boxes are now.
    """

    expression: Expression | None
    before: Expression | None
    places: Sequence[int | None] = ()

    @classmethod
    def of(cls, expression: Expression | None, before: Expression | None) -> "Truth":
        """With its places: boxes are told apart by numbers, by the id, which may be given since,
        and by their order.
        """
        olds, news = (one["instances"] if one else [] for one in (before, expression))
        ids, left = {str(old.get("bbox_id")) for old in olds}, defaultdict[str, list[int]](list)
        for place, new in reversed([*enumerate(news)]):
            id = str(new.get("bbox_id"))
            left[f"{new['bbox']} {id if id in ids else None}"].append(place)
        alike = [left[f"{old['bbox']} {old.get('bbox_id')}"] for old in olds]
        return cls(expression, before, [places.pop() if places else None for places in alike])

    def box(self, number: int) -> dict[str, Any] | None:
        """What a box that was there before is now; None where it is gone or moved."""
        place = self.places[number] if number < len(self.places) else None
        return (
            self.expression["instances"][place] if self.expression and place is not None else None
        )


def version_of(expression: Mapping[str, Any] | None) -> str:
    """A short digest of an expression; empty for none.

    Example:
        >>> version_of({"text": "a dog"}), version_of(None)
        ('688b9936d95f', '')
    """
    text = json.dumps(expression, sort_keys=True)
    return "" if expression is None else hashlib.sha256(text.encode()).hexdigest()[:12]


def word_of(row: Mapping[str, Any]) -> bool | None:
    """What a reviewer said of an expression or a box: right, wrong, or None."""
    said = row.get("verified") if row.get("reviewed_by") else None
    return said if isinstance(said, bool) else None


def is_judged(expression: Expression | None) -> bool:
    """Whether a reviewer said something of it, or of one of its boxes."""
    return expression is not None and any(
        one.get("reviewed_by") for one in (expression, *expression["instances"])
    )


def overlaid(record: Record, said: Mapping[str, Truth], comment: str | None = None) -> Record:
    """The record as its reviewers left it, whatever a later run says of the same phrases.

    `said` has what they said of its expressions, by id. A phrase of a later run that took a
    reviewed one's id gets another; a rejection is of the boxes that were seen, so other boxes of a
    later run stand, unjudged, in their place. What nobody judged stays as it was written.
    """
    if not said and comment is None:
        return record
    column, found = annotated_column(record) or "expressions", expressions_of(record)
    rows = rows_of(record, found, said)
    if column == "expressions":
        written = zip(found, record.get(column) or (), strict=True)
        as_it_was = {id: one if isinstance(one, dict) else {"text": one} for id, one in written}
        items = [
            (
                {**as_it_was[id], "expression_id": row["expression_id"]}
                if row is found.get(id)
                else row
            )
            for id, row in rows.items()
        ]
    else:
        items = list(_regions(record[column], column, rows, [*found]))
    return record.updated(
        {column: items, **({} if comment is None else {"review_comment": comment})}
    )


def rows_of(
    record: Record, found: Mapping[str, Expression], said: Mapping[str, Truth]
) -> dict[str, Expression]:
    """What stands of a record's expressions `found`, in order, then what reviewers said besides;
    ids stay their own.
    """
    pairs = _pairs(found, said)
    now = {own: found[id] for id, own in pairs.items()}
    left = {
        id: _in_captions(record, truth, now.get(id))
        for id, truth in said.items()
        if truth.expression
    }
    standing = {
        id: expression
        for id, expression in left.items()
        if _stands(expression, said[id].before, now.get(id))
    }
    rows: dict[str, Expression] = {}
    for id, expression in found.items():
        own = pairs.get(id)
        if own in standing:
            rows[own] = standing[own]
        elif own is None or own in left:  # nobody judged it, or other boxes of it were rejected
            name = id if id not in said or own == id else next_id(record, {**found, **said, **rows})
            rows[name] = expression if name == id else {**expression, "expression_id": name}
    return rows | {id: expression for id, expression in standing.items() if id not in rows}


def _pairs(found: Mapping[str, Expression], said: Mapping[str, Truth]) -> dict[str, str]:
    """Which of a record's expressions are those that were reviewed, by their ids, which a later run
    may give to others.

    Of several that read alike, those whose boxes meet are the same, then those at one place, then
    those with one id.
    """
    # the same run
    pairs = {own: own for own, truth in said.items() if own in found and found[own] == truth.before}
    rest = {id: expression for id, expression in found.items() if id not in pairs}
    others = {own: truth for own, truth in said.items() if own not in pairs}
    for *_, id, own in sorted(_alike(rest, others), key=lambda pair: pair[:3], reverse=True):
        if id in rest and own in others:
            pairs[id] = own
            del rest[id], others[own]
    return pairs


def _alike(
    found: Mapping[str, Expression], said: Mapping[str, Truth]
) -> Iterator[tuple[float, bool, bool, str, str]]:
    """Of each two that read alike and may be the same, how far their boxes meet, and so on; then
    their ids.
    """
    texts = Counter(expression["text"] for expression in found.values())
    for own, truth in said.items():
        sides = [side for side in truth[:2] if side]  # as it is and was
        for id, expression in found.items():
            if expression["text"] in [side["text"] for side in sides]:
                meets = max(_overlap(expression, side) for side in sides)
                at_one_place = (expression.get("char_span") or "nowhere") in [
                    side.get("char_span") for side in sides
                ]
                is_only = truth.before and texts[expression["text"]] == 1
                if any((meets, at_one_place, id == own, is_only)):
                    yield meets, at_one_place, id == own, id, own


def _overlap(one: Expression, other: Expression) -> float:
    """The least IoU of their boxes, in order; 0 below a half, and where there are not as many."""
    boxes = [[box_of(instance["bbox"]) for instance in side["instances"]] for side in (one, other)]
    if len(boxes[0]) != len(boxes[1]):
        return 0.0
    least = min((iou(*both) for both in zip(*boxes, strict=True)), default=0.0)
    return least if least >= 0.5 else 0.0


def _in_captions(record: Record, truth: Truth, now: Expression | None) -> Expression:
    """A reviewer's expression, where it stands in captions that may be others by now; nowhere if
    that is unclear.
    """
    said, before = dict(truth.expression or {}), truth.before or {}
    text = said["text"]
    for name, caption in (
        ("char_span", caption_of(record)),
        ("caption_span", str(record.get("caption"))),
    ):
        span = said.get(name)
        if now and (text, span) == (now["text"], before.get(name)):
            said |= {name: now.get(name)} if name in said else {}
        elif span is not None and not (
            is_span(span, len(caption)) and caption[slice(*span)] == text
        ):
            start = caption.find(text)
            said[name] = [start, start + len(text)] if caption.count(text) == 1 else None
    return said


def _stands(said: Expression, before: Expression | None, now: Expression | None) -> bool:
    """Whether a reviewer's word stands: a rejection of all its boxes is of those that were seen,
    and of no others.
    """
    if said.get("verified") is not False or any(map(word_of, said["instances"])):
        return True
    seen = [[i["bbox"] for i in one["instances"]] for one in (said, before) if one]
    return (now and [i["bbox"] for i in now["instances"]]) in seen


def next_id(record: Record, taken: Mapping[str, Any]) -> str:
    """An id for a further expression of the record."""
    ids = (expression_id(record, number) for number in count(len(taken)))
    return next(id for id in ids if id not in taken)


def _regions(
    items: Sequence[Any], column: str, rows: Mapping[str, Expression], ids: list[str]
) -> Iterator[Any]:
    """The items of a column of regions, each with its first box."""
    name = "text" if column == "region_captions" else "type"
    for id, row in rows.items():
        before = items[ids.index(id)] if id in ids else {}
        said = {key: row[key] for key in ("verified", "reviewed_by") if key in row}
        text = {} if row["text"] in before.values() else {name: row["text"]}
        further = ({name: row["text"]} for _ in row["instances"][1:])
        for item, instance in zip([{**before, **text}, *further], row["instances"], strict=False):
            drawn = {"evidence": "person"} if instance.get("evidence") == "person" else {}
            kept = {
                key: value
                for key, value in item.items()
                if not (drawn and key in (*_OF_THE_NUMBERS, "score"))
            }
            yield {**kept, **said, **drawn, "bbox": instance["bbox"]}
        if not row["instances"] and said.get("verified") is True:
            # it isn't there: then the region is wrong
            yield {**before, **text, **said, "verified": False}


def changed(
    record: Record,
    id: str,
    before: Expression | None,
    given: Mapping[str, Any],
    who: str,
    others: Mapping[str, Expression],
) -> Expression:
    """An expression as a reviewer wants it.

    Args:
        record: Whose caption the span is of.
        id: The expression's.
        before: As it stands, None for a new one.
        given: `instances`, each a `bbox` in pixels of the upright picture, `from` (its place in
            `before`, None for one drawn now; or `of`, the `id` and `box` of one of the `others`)
            and `verified`; `status`; `verified` of one without boxes; and, where they change,
            `text` and `char_span` ([start, end) in code points, or None).
        who: The reviewer.
        others: The record's other expressions.

    Raises:
        InputError: Something of `given` is not of that form.
    """
    if not isinstance(given, Mapping):
        raise InputError(
            f"expression {id}: what comes after should be an object or null, not {given!r:.40}"
        )
    old: Expression = before or {"expression_id": id, "instances": []}
    after = {**old, **_text(record, id, given)} if "text" in given or not before else dict(old)
    if after.get("text") != old.get("text"):
        after = {
            name: value
            for name, value in after.items()
            if name not in _OF_THE_TEXT or value != old.get(name)
        }
    items, status = given.get("instances"), given.get("status")
    if status not in (*STATUSES, "pending") or not isinstance(items, list):
        raise InputError(
            f"expression {id}: 'instances' should be a list, 'status' one of {', '.join(STATUSES)}"
        )
    # a person looked
    status = "none" if (status, items, given.get("verified")) == ("pending", [], True) else status
    items = [item if isinstance(item, Mapping) else {} for item in items]
    instances = [_instance(id, _as_was(id, item, old, others), item, who) for item in items]
    _number_boxes(id, instances)
    return _judged({**after, "instances": instances, "status": status}, given, who)


def _as_was(
    id: str, item: Mapping[str, Any], old: Expression, others: Mapping[str, Expression]
) -> dict[str, Any]:
    """The box of an item before, of its phrase or of one that joins it; without numbers for one
    drawn now.
    """
    of, place, boxes = item.get("of"), item.get("from"), old["instances"]
    if isinstance(of, Mapping):
        place, boxes = of.get("box"), others.get(str(of.get("id")), {"instances": []})["instances"]
    if place is None:
        return {"bbox": [None] * 4}
    if place not in range(len(boxes)):
        raise InputError(f"expression {id}: there is no box {place!r}")
    return dict(boxes[place])


def _number_boxes(id: str, instances: list[dict[str, Any]]) -> None:
    ends = [str(instance.get("bbox_id")).rpartition(".")[2] for instance in instances]
    free = 1 + max((int(end) for end in ends if end.isdecimal()), default=-1)
    for number, instance in enumerate((i for i in instances if not i.get("bbox_id")), free):
        instance["bbox_id"] = f"{id}.{number}"


def _text(record: Record, id: str, given: Mapping[str, Any]) -> Expression:
    """Text and span, as they change. Raises InputError."""
    text, span, caption = given.get("text"), given.get("char_span"), caption_of(record)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"expression {id}: 'text' should be a text")
    if span is not None and not (is_span(span, len(caption)) and caption[slice(*span)] == text):
        raise InputError(
            f"expression {id}: 'char_span' {span!r} is not where {text!r} stands in the caption"
        )
    return {
        "text": text,
        "char_span": span,
        **({"caption_span": span} if caption == record.get("caption") else {}),
    }


def _judged(after: Expression, given: Mapping[str, Any], who: str) -> Expression:
    """The expression with what a reviewer's word on each box, or on a phrase without any, says once
    all are judged.

    Until then nothing: what was said before was of something else.
    """
    instances = after["instances"]
    verdicts = {*map(word_of, instances)}
    verified = (
        given.get("verified")
        if not instances
        else False
        if False in verdicts
        else verdicts == {True} or None
    )
    if isinstance(verified, bool):
        return {**after, "verified": verified, "reviewed_by": who}
    was_said = ("verified", "reviewed_by") if after.get("reviewed_by") or not instances else ()
    return {name: value for name, value in after.items() if name not in was_said}


def _instance(id: str, old: dict[str, Any], item: Mapping[str, Any], who: str) -> dict[str, Any]:
    bbox: Any = item.get("bbox")
    verified, is_as_written = item.get("verified"), bbox == list(old["bbox"])
    is_rejected = is_as_written and verified is not True  # which one that is none can be
    if not (is_rejected or (is_box(bbox) and area(box_of(bbox)))):
        raise InputError(
            f"expression {id}: a box should be [x1, y1, x2, y2] with x1 < x2 and y1 < y2, not"
            f" {bbox!r}"
        )
    if is_as_written:  # its numbers stay so
        is_news = type(verified) is bool and verified != word_of(old)
        return {**old, "verified": verified, "reviewed_by": who} if is_news else old
    exact = [
        was if n == was else _number(n, old["bbox"])
        for n, was in zip(bbox, old["bbox"], strict=True)
    ]
    drawn = {
        "bbox": exact,
        "score": None,
        "evidence": "person",
        "verified": True,
        "reviewed_by": who,
    }
    return {name: value for name, value in old.items() if name not in _OF_THE_NUMBERS} | drawn


def _number(value: float, like: list[Any]) -> float:
    """In hundredths of a pixel; whole where it is, unless the box had floats."""
    rounded = round(float(value), 2)
    return (
        int(rounded)
        if rounded.is_integer() and not any(isinstance(n, float) for n in like)
        else rounded
    )
