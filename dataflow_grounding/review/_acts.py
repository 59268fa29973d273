"""What one decision says, by names: acts, made of a page's request and laid over a record again.

An act names a phrase, `{"phrase": "a cup"}`, or one of its boxes, as `"box": [x1, y1, x2, y2]` with
its phrase, and says one thing of it:

- of a box `right` (true or false), `gone`, or `corners`: those that a person drew, with `right`
  unless nobody has judged them yet
- of a phrase `right` (false: its thing was missed), `absent`, `gone`, `text` (with its spans),
  `new`: a box that was added, or `added`: the phrase itself is new

A phrase that its record has several times is told by its `span` and its `boxes`. An act holds
wherever its name is found: in the same run again, in a later step, in another folder.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import GroundingError, InputError
from dataflow_grounding.boxes.geometry import Size, area, box_of, clamp
from dataflow_grounding.boxes.regions import with_corners
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import (
    Record,
    annotated_column,
    caption_of_spans,
    is_box,
    is_number,
    stated_size,
)
from dataflow_grounding.images.files import read_header
from dataflow_grounding.review._overlay import (
    JUDGEMENT,
    Outcome,
    is_place_of,
    next_id,
    reviewer_verdict,
    standing_expressions,
)
from dataflow_grounding.review._record_view import Expression, file_of_picture

Act: TypeAlias = dict[str, Any]

# Columns of an expression that are wrong once its text has changed.
_TEXT_COLUMNS = ("noun_chunk", "caption_span")
_SAME_SIZE = 0.02  # px: corners that a person drew are rounded to hundredths
_MOST_DIGITS = 4000  # of a number in a box id that is read: Python reads no int of over 4,300


class Replay:
    """The phrases of a record, while decisions are laid over them one by one."""

    def __init__(self, record: Record, written: Mapping[str, Expression]) -> None:
        self._record = record
        self._written = written
        self._states_verdicts = _states_verdicts(record)
        self.outcomes: dict[str, Outcome] = {}  # by id, of every phrase that was written or added
        self._ids_of_text = defaultdict[str, list[str]](list)  # as they are now
        for id, row in written.items():
            self.outcomes[id] = Outcome(row, row, [*range(len(row["instances"]))])
            self._ids_of_text[row["text"]].append(id)

    def standing(self) -> dict[str, Expression]:
        """Return the phrases as they are now, by id."""
        return standing_expressions(self._record, self._written, self.decided())

    def decided(self) -> dict[str, Outcome]:
        """Return the outcomes of phrases that were decided on."""
        return {id: outcome for id, outcome in self.outcomes.items() if outcome.who}

    def take(self, act: Act, who: str) -> bool:
        """Lay an act over all that has its name; return whether anything has."""
        if "added" in act:
            return self._add_phrase(act, who)
        meant = list(self._meant(act))
        for id, outcome in meant:
            self._change(id, outcome, act, who)
            outcome.who = who
        return bool(meant)

    def _add_phrase(self, act: Act, who: str) -> bool:
        # A picture of several records gets it once. Where a later run names it, it is there.
        if self._record.occurrence or list(self._meant({"phrase": act["phrase"]})):
            return False
        id = next_id(self._record, self.outcomes)
        row: Expression = {"expression_id": id, "text": act["phrase"], **act["added"]}
        row |= {"instances": [], "status": "pending"}
        _adapt_to_text(row, {}, self._others(id))
        self.outcomes[id] = Outcome(self._judged(row, None, who), None, who=who)
        self._ids_of_text[row["text"]].append(id)
        return True

    def _others(self, id: str) -> list[Expression]:
        """Return the rows of all other phrases that are there."""
        outcomes = self.outcomes.items()
        return [outcome.after for key, outcome in outcomes if outcome.after and key != id]

    def _meant(self, act: Act) -> Iterator[tuple[str, Outcome]]:
        of_text = []
        for id in self._ids_of_text.get(act["phrase"], ()):
            outcome = self.outcomes[id]
            if outcome.after is not None and outcome.after["text"] == act["phrase"]:
                of_text.append((id, outcome, outcome.after))
        if "span" in act:
            of_text = [
                each for each in of_text if each[2].get("char_span") == act["span"]
            ] or of_text
        if "boxes" in act:
            of_text = [each for each in of_text if _corners_of(each[2]) == act["boxes"]] or of_text
        for id, outcome, row in of_text:
            if "box" not in act or _indices_of(act["box"], row):
                yield id, outcome

    def _change(self, id: str, outcome: Outcome, act: Act, who: str) -> None:
        row = outcome.after
        assert row is not None  # `_meant` yields no other
        if "box" in act:
            self._change_box(outcome, row, act, who)
        elif "gone" in act:
            outcome.after = None
        elif "absent" in act:
            outcome.origins = []
            outcome.after = self._judged({**row, "instances": [], "status": "none"}, True, who)
        elif "text" in act:
            spans = ("char_span", "caption_span")
            columns = {key: act[key] for key in ("text", *spans) if key in act}
            changed = {**row, **columns}
            if act["text"] != row["text"]:
                _adapt_to_text(changed, row, self._others(id))
                self._ids_of_text[act["text"]].append(id)
            outcome.after = self._judged(changed, reviewer_verdict(row), who)
        elif "new" in act:
            boxes = [*row["instances"], dict(act["new"])]
            _add_missing_ids(id, boxes)
            outcome.origins.append(None)
            outcome.after = self._judged(
                {**row, "instances": boxes, "status": "grounded"}, None, who
            )
        elif not row["instances"]:
            status = row.get("status") or "pending"
            outcome.after = self._judged({**row, "status": status}, act["right"], who)

    def _change_box(self, outcome: Outcome, row: Expression, act: Act, who: str) -> None:
        boxes = [dict(box) for box in row["instances"]]
        meant = _indices_of(act["box"], row)
        for index in meant:
            origin = outcome.origins[index]
            if "corners" in act:
                boxes[index] = _without_judgement(_drawn_box(boxes[index], act["corners"]))
                if origin is not None:
                    outcome.redrawn.add(origin)
            verdict = act.get("right")
            # Who repeats a verdict doesn't take it over: `reviewed_by` is who judged it first.
            if verdict is not None and verdict != reviewer_verdict(boxes[index]):
                boxes[index] |= {"verified": verdict, "reviewed_by": who}
        status = row.get("status")
        if "gone" in act:
            boxes = [box for index, box in enumerate(boxes) if index not in meant]
            kept = [o for index, o in enumerate(outcome.origins) if index not in meant]
            outcome.origins = kept
            status = status if boxes else "none"
        changed = {**row, "instances": boxes}
        if status is not None:
            changed["status"] = status
        outcome.after = self._judged(changed, None, who)

    def _judged(self, row: Expression, verdict: bool | None, who: str) -> Expression:
        return _with_judgement(row, verdict, who, self._states_verdicts)


def _corners_of(row: Expression) -> list[list[float]]:
    return [list(box["bbox"]) for box in row["instances"]]


def _indices_of(corners: Sequence[float], row: Expression) -> list[int]:
    corners = list(corners)
    boxes = enumerate(row["instances"])
    return [index for index, box in boxes if list(box["bbox"]) == corners]


def check_acts(line: Mapping[str, Any]) -> None:
    """Raise TypeError, KeyError or ValueError for a line of decisions with what is no act."""
    for act in line["acts"]:
        if not isinstance(act["phrase"], str):
            raise TypeError
        boxes = [act[key] for key in ("box", "corners") if key in act]
        if "new" in act:
            boxes.append(act["new"]["bbox"])
        if not all(map(is_box, boxes)):
            raise ValueError
        if not isinstance(act.get("added", {}), dict) or not isinstance(act.get("text", ""), str):
            raise TypeError
        if not isinstance(act.get("right", True), bool | None):
            raise TypeError


def named_acts(
    record: Record, wanted: Sequence[Mapping[str, Any]], replay: Replay, who: str
) -> tuple[list[Act], list[str]]:
    """Return what a page asks for as acts, each laid over the record, and the ids that they are on.

    Each of `wanted` has the `id` of an expression where an act has names, and else what an act has,
    but for:

    - `new`, the corners of a box; `of` is the id of another expression that has the box, whose
      score and evidence it keeps then, and `right` is what is said of it
    - `added`, the text of a phrase, with its `char_span` (code points)

    Raises InputError for what is not of that form.
    """
    acts: list[Act] = []
    ids = []
    for each in wanted:
        standing = replay.standing()
        if "added" in each:
            id = next_id(record, replay.outcomes)
            columns = _text_and_spans(record, id, {**each, "text": each["added"]})
            made = [_added(columns, standing)]
        else:
            id = str(each.get("id"))
            if id not in standing:
                raise InputError(f"there is no expression {id}")
            made = _acts_on(record, id, each, standing)
        for act in made:
            replay.take(act, who)
        acts += made
        ids.append(id)
    return acts, [*dict.fromkeys(ids)]


def _added(columns: Mapping[str, Any], standing: Mapping[str, Expression]) -> Act:
    text = columns["text"]
    if any(row["text"] == text for row in standing.values()):
        raise InputError(f"there is a phrase {text!r} already: draw further boxes of it")
    spans = {key: value for key, value in columns.items() if key != "text"}
    return {"phrase": text, "added": spans}


def _acts_on(
    record: Record, id: str, wanted: Mapping[str, Any], standing: Mapping[str, Expression]
) -> list[Act]:
    row = standing[id]
    named: Act = {"phrase": row["text"]}
    # what tells the phrase from others of its text in the record
    if sum(other["text"] == row["text"] for other in standing.values()) > 1:
        named["boxes"] = _corners_of(row)
        if row.get("char_span"):
            named["span"] = row["char_span"]
    verdict = wanted.get("right")
    if verdict is not None and not isinstance(verdict, bool):
        raise InputError(
            f"expression {id}: 'right' should be true, false or null, not {verdict!r:.40}"
        )
    if "box" in wanted:
        return [{**named, **_act_on_box(record, id, row, wanted)}]
    if "new" in wanted:
        return _acts_on_new_box(record, id, named, wanted, standing)
    for word in ("gone", "absent"):
        if wanted.get(word) is True:
            return [{**named, word: True}]
    if "text" in wanted:
        columns = _text_and_spans(record, id, wanted)
        is_same = columns["text"] == row["text"] and columns["char_span"] == row.get("char_span")
        return [] if is_same else [{**named, **columns}]
    if "right" not in wanted or row["instances"]:
        raise InputError(f"expression {id}: nothing is said of it, or of its boxes")
    return [{**named, "right": verdict}]


def _act_on_box(
    record: Record, id: str, row: Expression, wanted: Mapping[str, Any]
) -> dict[str, Any]:
    found = [box for box in row["instances"] if list(box["bbox"]) == wanted["box"]]
    if not found:
        raise InputError(f"expression {id}: there is no box {wanted['box']!r:.60}")
    act: Act = {"box": list(found[0]["bbox"])}
    if wanted.get("gone") is True:
        return {**act, "gone": True}
    if wanted.get("right") is not None:
        act["right"] = wanted["right"]
    if "corners" in wanted:
        bbox = _clipped(record, id, wanted["corners"])
        return {**act, "corners": _drawn_box(dict(found[0]), bbox)["bbox"]}
    if "right" not in act:
        raise InputError(f"expression {id}: nothing is said of a box")
    if act["right"]:  # a box without an area may be rejected alone
        _check_has_area(id, act["box"])
    return act


def _acts_on_new_box(
    record: Record,
    id: str,
    named: Act,
    wanted: Mapping[str, Any],
    standing: Mapping[str, Expression],
) -> list[Act]:
    other = standing.get(str(wanted.get("of")), {"instances": []})
    kept = [box for box in other["instances"] if list(box["bbox"]) == wanted["new"]]
    if kept:
        box = dict(kept[0])
    elif wanted.get("of") is not None:
        raise InputError(f"expression {id}: there is no box {wanted['new']!r:.60}")
    else:
        bbox = _clipped(record, id, wanted["new"])
        box = _without_judgement(_drawn_box({"bbox": [None] * 4}, bbox))
    acts: list[Act] = [{**named, "new": box}]
    verdict = wanted.get("right")
    if verdict is not None and verdict != reviewer_verdict(box):
        named = {key: value for key, value in named.items() if key != "boxes"}
        acts.append({**named, "box": list(box["bbox"]), "right": verdict})
    return acts


def _adapt_to_text(
    after: Expression, old_expression: Expression, others: Sequence[Expression]
) -> None:
    """Remove from `after`, whose text is new, what held for the old one; give it a known class."""
    for column in _TEXT_COLUMNS:
        if column in after and after[column] == old_expression.get(column):  # not set by the review
            del after[column]
    after.pop("class", None)
    new_text = class_key(after["text"])
    # Another expression may have the new text, or have it as its class.
    for other in others:
        name = other.get("class")
        if not isinstance(name, str):
            continue
        if new_text in (class_key(str(other.get("text"))), class_key(name)):
            after["class"] = name
            return


def _add_missing_ids(id: str, instances: list[dict[str, Any]]) -> None:
    """Number the `instances` without an id above all others: "a.jpg#2.3" after "a.jpg#2.2"."""
    highest = -1
    for instance in instances:
        number = str(instance.get("bbox_id")).rpartition(".")[2]
        if number.isdecimal() and len(number) <= _MOST_DIGITS:
            highest = max(highest, int(number))
    for instance in instances:
        if not instance.get("bbox_id"):
            highest += 1
            instance["bbox_id"] = f"{id}.{highest}"


def _text_and_spans(record: Record, id: str, wanted: Mapping[str, Any]) -> Expression:
    """Return the columns that a reviewer's new text sets: the text, and its places in captions."""
    text = wanted.get("text")
    span = wanted.get("char_span")
    caption = caption_of_spans(record)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"expression {id}: 'text' should be a text")
    if span is not None and not is_place_of(text, span, caption):
        raise InputError(
            f"expression {id}: 'char_span' {span!r} is not the place of {text!r} in the caption"
        )
    changes = {"text": text, "char_span": span}
    if caption == record.get("caption"):
        # `char_span` is a place in the cleaned caption, `caption_span` in the caption as it came.
        # Only if nothing was cleaned do we know the second one, too.
        changes["caption_span"] = span
    return changes


def _states_verdicts(record: Record) -> bool:
    """Return whether expressions have `verified`; older pipelines left it out of unchecked ones."""
    rows = record.get(annotated_column(record))
    return isinstance(rows, list) and any(
        isinstance(row, dict) and "verified" in row for row in rows
    )


def _with_judgement(
    after: Expression, verdict: bool | None, who: str, states_verdicts: bool
) -> Expression:
    """Return the expression with the verdict of its boxes; with `verdict` if it has none."""
    instances = after["instances"]
    verified = _verdict_of_boxes(instances) if instances else verdict
    if verified is not None:
        return {**after, "verified": verified, "reviewed_by": who}
    was_reviewed = bool(after.get("reviewed_by"))
    if instances and not was_reviewed:
        # `verified`, if it has that, is what a check of the pipeline said: it stays until all
        # boxes are judged.
        return dict(after)
    # An earlier review judged it, or it has no boxes: no verdict is on what it is now.
    unjudged = _without_judgement(after)
    if states_verdicts:  # as the record's other expressions do
        unjudged["verified"] = None
    return unjudged


def _verdict_of_boxes(instances: Sequence[Mapping[str, Any]]) -> bool | None:
    verdicts = [reviewer_verdict(instance) for instance in instances]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _without_judgement(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in JUDGEMENT}


def _check_has_area(id: str, bbox: Any) -> None:
    if not is_box(bbox) or area(box_of(bbox)) <= 0:
        raise InputError(
            f"expression {id}: a box should be [x1, y1, x2, y2] with x1 < x2 and y1 < y2, not"
            f" {bbox!r}"
        )


def _drawn_box(old: dict[str, Any], bbox: list[float]) -> dict[str, Any]:
    """Return the box `old`, whose corners may be None, with the corners that a person drew."""
    corners = []
    for new_edge, old_edge in zip(bbox, old["bbox"], strict=True):
        # An edge that wasn't moved keeps all its digits.
        corners.append(old_edge if new_edge == old_edge else _rounded(new_edge, old["bbox"]))
    columns = with_corners(old, corners)
    outline = _shifted(old.get("outline"), old["bbox"], corners)
    if outline:
        columns["outline"] = outline
    return {**columns, "score": None, "evidence": "person"}


def _shifted(outline: Any, old: Sequence[float], new: Sequence[float]) -> list[float] | None:
    """Return the outline moved as the corners were; None for none, or where the size changed."""
    if not isinstance(outline, list) or not all(map(is_number, outline)):
        return None
    if not is_box(old):
        return None
    dx1, dy1, dx2, dy2 = (after - before for before, after in zip(old, new, strict=True))
    is_resized = max(abs(dx2 - dx1), abs(dy2 - dy1)) > _SAME_SIZE
    if is_resized:
        return None
    shifted = []
    for place, number in enumerate(outline):  # x, y, x, y and so on
        shift = dx1 if place % 2 == 0 else dy1
        shifted.append(round(number + shift, 3))
    return shifted


def _size_of_picture(record: Record) -> Size | None:
    try:
        return read_header(file_of_picture(record).path).size
    except GroundingError:
        return stated_size(record)  # it may be of the picture before it was turned upright


def _clipped(record: Record, id: str, bbox: Any) -> list[float]:
    """Return corners that a person drew, within the picture."""
    _check_has_area(id, bbox)
    size = _size_of_picture(record)
    if size is None:
        return list(bbox)
    inside = clamp(box_of(bbox), size)
    if area(inside) <= 0:
        raise InputError(
            f"expression {id}: the box {bbox} is outside of the picture, {size[0]} x {size[1]}"
        )
    return list(bbox) if inside == box_of(bbox) else list(inside)


def _rounded(edge: float, old_corners: list[Any]) -> float:
    """Return 12 for 12.0, unless old corners are floats: a box's numbers stay of one kind."""
    rounded = round(float(edge), 2)
    if rounded.is_integer() and not any(isinstance(old, float) for old in old_corners):
        return int(rounded)
    return rounded
