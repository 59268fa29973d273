"""What reviewers said of a record, laid over what a pipeline said of it; changes of an expression, and its version."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding.errors import InputError
from dataflow_grounding.records import STATUSES, Record, annotated_column, is_number, read_annotations

Expression: TypeAlias = dict[str, Any]
PERSON = "person"
"""The `evidence` of a box that a reviewer drew or moved."""
_OF_THE_TEXT = ("noun_chunk", "caption_span")  # what holds no longer for another text
_REGION_TEXT = {"region_captions": "text", "regions": "type"}


class Truth(NamedTuple):
    """How a reviewer left an expression, None for deleted; `origin`: the text it had before, None for one added;
    `first`: the version that it had.
    """

    expression: Expression | None
    origin: str | None
    first: str


def caption_of(record: Mapping[str, Any]) -> str:
    """The caption that spans are of; empty without one."""
    texts = (record.get(key) for key in ("cleaned_caption", "caption"))
    return next((text for text in texts if isinstance(text, str)), "")


def expressions_of(record: Record) -> dict[str, Expression]:
    """The record's expressions (or region captions, or regions) by id; none without a column of them.

    Raises BrokenRow. Of several with one id, which can't be told apart, the first is meant.
    """
    found: dict[str, Expression] = {}
    for expression in read_annotations(record) if annotated_column(record) else ():
        found.setdefault(str(expression["expression_id"]), expression)
    return found


def version_of(expression: Mapping[str, Any] | None) -> str:
    """A short digest of an expression; empty for none.

    Example:
        >>> version_of({"text": "a dog"}) == version_of({"text": "a dog"}) != version_of({"text": "a cat"})
        True
    """
    if expression is None:
        return ""
    return hashlib.sha256(json.dumps(expression, sort_keys=True).encode()).hexdigest()[:12]


def overlaid(record: Record, said: Mapping[str, Truth], comment: str | None = None) -> dict[str, Any]:
    """The record as its reviewers left it: what they said stands, whatever a later run said of the same phrases.

    Args:
        record: As the pipeline left it.
        said: What reviewers said of its expressions, by id.
        comment: On the record as a whole.

    Returns:
        A copy; untouched expressions are the record's own. A phrase of a later run that took a reviewed one's id gets
        another; a rejection is of the boxes that were seen, so boxes of a later run stand unjudged in their place.
    """
    if not said and comment is None:
        return dict(record)
    column, found = annotated_column(record) or "expressions", expressions_of(record)
    standing = {id: truth.expression for id, truth in said.items() if truth.expression and _stands(truth, found.get(id))}
    there = {_place(expression) for expression in standing.values()}
    rows: dict[str, Expression] = {}
    for id, expression in found.items():
        if id in said and _is_of(said[id], expression):
            rows |= {id: standing[id]} if id in standing else {id: expression} if said[id].expression else {}
        elif _place(expression) not in there:
            own = id if id not in said else next_id(record, {**found, **said, **rows})
            rows[own] = expression if own == id else {**expression, "expression_id": own}
    rows = {**rows, **standing}
    items = list(rows.values()) if column == "expressions" else _regions(record, column, rows)
    return {**record, column: items, **({} if comment is None else {"review_comment": comment})}


def _is_of(truth: Truth, expression: Expression) -> bool:
    """Whether this is the phrase that was reviewed, and no other that a later run gave its id."""
    return expression["text"] in (truth.origin, truth.expression and truth.expression["text"])


def _stands(truth: Truth, now: Expression | None) -> bool:
    """Whether it holds still: a rejection does of the boxes that were seen."""
    said = truth.expression
    if said is None or said.get("verified") is not False:
        return said is not None
    same = now is not None and [i["bbox"] for i in said["instances"]] == [i["bbox"] for i in now["instances"]]
    return same and _is_of(truth, now or said)


def _place(expression: Expression) -> tuple[str, str]:
    return expression["text"], str(expression.get("char_span"))


def next_id(record: Record, taken: Mapping[str, Any]) -> str:
    """An id for a further expression of the record."""
    number = len(taken)
    while f"{record.unique_id}#{number}" in taken:
        number += 1
    return f"{record.unique_id}#{number}"


def _regions(record: Record, column: str, rows: Mapping[str, Expression]) -> list[Any]:
    """The items of a column of regions, each with its first box."""
    own = dict(zip(expressions_of(record), record[column], strict=False))
    items = []
    for id, row in rows.items():
        before = own.get(id) or {}
        said = {key: row[key] for key in ("verified", "reviewed_by") if key in row}
        bbox = row["instances"][0]["bbox"] if row["instances"] else before.get("bbox")
        text = before if before and row["text"] in before.values() else {_REGION_TEXT[column]: row["text"]}
        items.append({**before, **text, **said, "bbox": bbox})
    return items


def changed(
    record: Record, id: str, before: Expression | None, given: Mapping[str, Any] | None, who: str
) -> Expression | None:
    """An expression as a reviewer wants it, None for deleted.

    Args:
        record: Whose caption the span is of.
        id: The expression's.
        before: As it stands, None for a new one.
        given: `instances`, each a `bbox` in pixels of the upright picture, `from` (its place in `before`, None for
            one drawn now) and `verified`; `status`; `verified` of one without boxes; and, where they change, `text`
            and `char_span` ([start, end) in code points, or None).
        who: The reviewer.

    Raises:
        InputError: Something of `given` is not of that form.
    """
    if given is None:
        return None
    old: Expression = before or {"expression_id": id, "instances": []}
    text, span, status = given.get("text", old.get("text")), given.get("char_span"), given.get("status")
    if not isinstance(text, str) or not text.strip() or status not in (*STATUSES, "pending"):
        raise InputError(f"expression {id}: 'text' should be a text and 'status' one of {', '.join(STATUSES)}")
    after = dict(old)
    if "text" in given:
        if span is not None and not (_is_span(span) and caption_of(record)[span[0] : span[1]] == text):
            raise InputError(f"expression {id}: 'char_span' {span!r} is not where {text!r} stands in the caption")
        after = {name: value for name, value in old.items() if name not in _OF_THE_TEXT}
        after |= {"text": text, "char_span": span}
        if caption_of(record) == record.get("caption"):
            after["caption_span"] = span
    instances = [_instance(id, old["instances"], item, who) for item in _items(given.get("instances"))]
    used = {instance["bbox_id"] for instance in instances if instance.get("bbox_id")}
    free = 1 + max((int(e) for i in used if (e := str(i).rpartition(".")[2]).isdecimal()), default=-1)
    for number, instance in enumerate((i for i in instances if not i.get("bbox_id")), free):
        instance["bbox_id"] = f"{id}.{number}"
    after |= {"instances": instances, "status": status}
    verdicts = {instance.get("verified") if instance.get("reviewed_by") else None for instance in instances}
    verified = given.get("verified") if not instances else False if False in verdicts else verdicts == {True} or None
    if isinstance(verified, bool):
        after |= {"verified": verified, "reviewed_by": who}
    return after


def _is_span(span: Any) -> bool:
    return isinstance(span, list) and len(span) == 2 and all(type(n) is int for n in span) and 0 <= span[0] < span[1]


def _items(given: Any) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        raise InputError("'instances' should be a list of objects")
    return given


def _instance(id: str, before: list[dict[str, Any]], item: Mapping[str, Any], who: str) -> dict[str, Any]:
    bbox, place, verified = item.get("bbox"), item.get("from"), item.get("verified")
    whole = isinstance(bbox, list) and len(bbox) == 4 and all(is_number(n) for n in bbox)
    if not whole or not (bbox[0] < bbox[2] and bbox[1] < bbox[3]):  # type: ignore[index]
        raise InputError(f"expression {id}: a box should be [x1, y1, x2, y2] with x1 < x2 and y1 < y2, not {bbox!r}")
    assert isinstance(bbox, list)
    if place is not None and not (type(place) is int and 0 <= place < len(before)):
        raise InputError(f"expression {id}: there is no box {place!r}")
    old = before[place] if place is not None else {"bbox": [None] * 4}
    judged = {"verified": verified, "reviewed_by": who} if isinstance(verified, bool) else {}
    if bbox == list(old["bbox"]):  # its numbers stay as they were written
        same = verified == old.get("verified") and old.get("reviewed_by")
        return dict(old) if same or not judged else {**old, **judged}
    exact = [was if n == was else _number(n, old["bbox"]) for n, was in zip(bbox, old["bbox"], strict=True)]
    known = {name: old[name] for name in ("bbox_id", "region_id") if name in old}
    return {**known, "bbox": exact, "score": None, "evidence": PERSON, "verified": True, "reviewed_by": who}


def _number(value: float, like: list[Any]) -> float:
    """In hundredths of a pixel; whole where it is, unless the box had floats."""
    rounded = round(float(value), 2)
    return int(rounded) if rounded.is_integer() and not any(isinstance(n, float) for n in like) else rounded
