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
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import GroundingError, InputError
from dataflow_grounding.boxes.geometry import Bbox, Size, area, clamp
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.expressions import (
    Expression,
    Instance,
    Span,
    read_bbox,
    read_span,
)
from dataflow_grounding.data.records import (
    JsonObject,
    Record,
    Update,
    annotated_column,
    caption_of_spans,
    expression_id,
    is_number,
    stated_size,
)
from dataflow_grounding.images.files import read_header
from dataflow_grounding.review._overlay import (
    JUDGEMENT,
    Outcome,
    is_place_of,
    reviewer_verdict,
)
from dataflow_grounding.review._record_view import file_of_picture

Spans: TypeAlias = dict[str, Span | None]
"""Places of a phrase: `char_span`, and `caption_span` where it is known."""

_SPANS = ("char_span", "caption_span")
_KINDS = ("added", "gone", "absent", "text", "new")  # what an act says, if it isn't `right`
_SAME_SIZE = 0.02  # px: corners that a person drew are rounded to hundredths


@dataclass(frozen=True)
class Act:
    """One thing that is said of a phrase, or of a box of it."""

    phrase: str
    says: str = "right"  # or one of _KINDS
    boxes: list[Bbox] | None = None
    span: Span | None = None
    box: Bbox | None = None
    right: bool | None = None  # None takes the verdict on a phrase back
    corners: Bbox | None = None
    text: str = ""  # the new one
    spans: Spans = field(default_factory=dict)  # of a new text, or of a phrase that is added
    new: Instance | None = None

    @classmethod
    def from_json(cls, row: Any) -> "Act":
        """Read an act. Raises TypeError, KeyError, ValueError or BrokenRow for what is none."""
        right = row.get("right")
        if not isinstance(row["phrase"], str) or not isinstance(right, bool | None):
            raise TypeError
        if not isinstance(row.get("text", ""), str):
            raise TypeError
        corners = {key: read_bbox(row[key]) for key in ("box", "corners") if key in row}
        if None in corners.values():
            raise ValueError
        boxes = row.get("boxes")
        spans = row.get("added", row)
        return cls(
            row["phrase"],
            says=next((kind for kind in _KINDS if kind in row), "right"),
            boxes=None if boxes is None else [box for box in map(read_bbox, boxes) if box],
            span=read_span(row.get("span")),
            right=right,
            text=row.get("text", ""),
            spans={key: read_span(spans[key]) for key in _SPANS if key in spans},
            new=Instance.from_json(row["new"]) if "new" in row else None,
            **corners,
        )

    def to_json(self) -> Update:
        row: Update = {"phrase": self.phrase}
        if self.boxes is not None:
            row["boxes"] = [list(box) for box in self.boxes]
        if self.span is not None:
            row["span"] = list(self.span)
        if self.box is not None:
            row["box"] = list(self.box)
        spans = {key: span and list(span) for key, span in self.spans.items()}
        if self.says == "added":
            row["added"] = spans
        elif self.says == "text":
            row |= {"text": self.text, **spans}
        elif self.new is not None:
            row["new"] = self.new.to_json()
        elif self.says != "right":
            row[self.says] = True
        elif self.right is not None or self.box is None:
            row["right"] = self.right
        if self.corners is not None:
            row["corners"] = list(self.corners)
        return row


class Review:
    """What holds on a record after decisions, which are laid over its phrases one by one."""

    def __init__(self, record: Record, written: Mapping[str, Expression]) -> None:
        self._record = record
        self.written = written
        self.outcomes: dict[str, Outcome] = {}  # by id, of phrases that were decided on or added
        self.comment: str | None = None
        self.decisions: list[int] = []  # the numbers of those that say something of the record

    @cached_property  # most records have no decision
    def _ids_of_text(self) -> dict[str, list[str]]:
        ids = defaultdict[str, list[str]](list)  # as they are now
        for id, row in self.written.items():
            ids[row.text].append(id)
        return ids

    @cached_property
    def _states_verdicts(self) -> bool:
        """Older pipelines left `verified` out of expressions that nobody has checked."""
        rows = self._record.get(annotated_column(self._record))
        return isinstance(rows, list) and any(
            isinstance(row, dict) and "verified" in row for row in rows
        )

    def standing(self) -> dict[str, Expression]:
        """Return the phrases as they are now, by id: added ones come last."""
        rows = {id: outcome.after for id, outcome in self.outcomes.items()}
        return {id: row for id, row in {**self.written, **rows}.items() if row is not None}

    def next_id(self) -> str:
        """Return an id for a further phrase, one that isn't taken: `a.jpg#3`."""
        taken = {**self.written, **self.outcomes}
        for number in count(len(taken)):
            id = expression_id(self._record, number)
            if id not in taken:
                break
        return id

    def take(self, act: Act, who: str) -> bool:
        """Lay an act over all that has its name; return whether anything has."""
        if act.says == "added":
            return self._add_phrase(act, who)
        meant = list(self._meant(act))
        for id, row in meant:
            if id not in self.outcomes:
                self.outcomes[id] = Outcome(row, row, [*range(len(row.instances))])
            if act.box is not None:
                self._change_box(self.outcomes[id], row, act, act.box, who)
            else:
                self._change(id, self.outcomes[id], row, act, who)
        return bool(meant)

    def _add_phrase(self, act: Act, who: str) -> bool:
        # A picture of several records gets it once. Where a later run names it, it is there.
        if self._record.occurrence or list(self._meant(Act(act.phrase))):
            return False
        id = self.next_id()
        named: Update = {"expression_id": id, "text": act.phrase, **act.spans}
        row = Expression.from_json({**named, "instances": [], "status": "pending"})
        row = _adapted_to_text(row, None, self._others(id))
        self._place(row, act)
        self.outcomes[id] = Outcome(None, None)
        self._judge(self.outcomes[id], row, None, who)
        self._ids_of_text[row.text].append(id)
        return True

    def _others(self, id: str) -> list[Expression]:
        """Return the rows of all other phrases that are there."""
        return [row for key, row in self.standing().items() if key != id]

    def _meant(self, act: Act) -> Iterator[tuple[str, Expression]]:
        of_text = []
        for id in self._ids_of_text.get(act.phrase, ()):
            row = self.outcomes[id].after if id in self.outcomes else self.written[id]
            if row is not None and row.text == act.phrase:
                of_text.append((id, row))
        if act.span is not None:
            of_text = [each for each in of_text if each[1].char_span == act.span] or of_text
        if act.boxes is not None:
            of_text = [each for each in of_text if _corners_of(each[1]) == act.boxes] or of_text
        for id, row in of_text:
            if act.box is None or act.box in _corners_of(row):
                yield id, row

    def _place(self, row: Expression, act: Act) -> None:
        """Find an act's spans again in a caption that another run has replaced since."""
        caption_as_given = self._record.get("caption")
        if not isinstance(caption_as_given, str):  # the record has none
            caption_as_given = ""
        captions = {"char_span": caption_of_spans(self._record), "caption_span": caption_as_given}
        for name, span in act.spans.items():
            caption = captions[name]
            if span is not None and not is_place_of(row.text, span, caption):
                start = caption.find(row.text)
                is_there_once = caption.count(row.text) == 1
                setattr(row, name, (start, start + len(row.text)) if is_there_once else None)

    def _change(self, id: str, outcome: Outcome, row: Expression, act: Act, who: str) -> None:
        changed = row.copy()
        verdict: bool | None = None
        if act.says == "gone":
            outcome.after, outcome.who = None, who
            return
        if act.says == "absent":
            outcome.origins = []
            changed.instances, changed.status = [], "none"
            verdict = True
        elif act.says == "text":
            changed = row.with_null(*act.spans)
            changed.text = act.text
            for key, span in act.spans.items():
                setattr(changed, key, span)
            if act.text != row.text:
                changed = _adapted_to_text(changed, row, self._others(id))
                self._ids_of_text[act.text].append(id)
            self._place(changed, act)
            verdict = reviewer_verdict(row)
        elif act.new is not None:
            outcome.origins.append(None)
            changed.instances = _with_ids(id, [*row.instances, act.new])
            changed.status = "grounded"
        elif row.instances:
            outcome.who = who
            return
        else:
            changed.status = row.status or "pending"
            verdict = act.right
        self._judge(outcome, changed, verdict, who)

    def _change_box(
        self, outcome: Outcome, row: Expression, act: Act, corners: Bbox, who: str
    ) -> None:
        changed = row.copy()
        boxes = list(row.instances)
        meant = [index for index, box in enumerate(boxes) if box.bbox == corners]
        for index in meant:
            origin = outcome.origins[index]
            if act.corners is not None:
                boxes[index] = _drawn(boxes[index], act.corners).without(*JUDGEMENT)
                if origin is not None:
                    outcome.redrawn.add(origin)
            # Who repeats a verdict doesn't take it over: `reviewed_by` is who judged it first.
            if act.right is not None and act.right != reviewer_verdict(boxes[index]):
                judged = boxes[index].copy()
                judged.verified, judged.reviewed_by = act.right, who
                boxes[index] = judged
        if act.says == "gone":
            boxes = [box for index, box in enumerate(boxes) if index not in meant]
            kept = [o for index, o in enumerate(outcome.origins) if index not in meant]
            outcome.origins = kept
            changed.status = row.status if boxes else "none"
        changed.instances = boxes
        self._judge(outcome, changed, None, who)

    def _judge(self, outcome: Outcome, row: Expression, verdict: bool | None, who: str) -> None:
        """Let an expression be what a reviewer made of it.

        It has the verdict of its boxes, or `verdict` if it has none.
        """
        outcome.after, outcome.who = row, who
        verified = verdict
        if row.instances:
            verdicts = {reviewer_verdict(instance) for instance in row.instances}
            verified = False if False in verdicts else None if None in verdicts else True
            # It is mended where right boxes were added for the rejected ones. Nobody says which is
            # for which, so only their numbers are compared.
            if verdicts == {True, False} and outcome.boxes_to_draw() <= 0:
                verified = True
        if verified is not None:
            outcome.after = row.copy()
            outcome.after.verified, outcome.after.reviewed_by = verified, who
        elif not row.instances or row.reviewed_by:
            # An earlier review judged it, or it has no boxes: no verdict is on what it is now. What
            # a check of the pipeline said stays until all boxes are judged.
            unjudged = row.without(*JUDGEMENT)
            outcome.after = unjudged.with_null("verified") if self._states_verdicts else unjudged


def _corners_of(row: Expression) -> list[Bbox]:
    return [box.bbox for box in row.instances]


def named_acts(
    record: Record, wanted: Sequence[JsonObject], review: Review, who: str
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
        standing = review.standing()
        if "added" in each:
            id = review.next_id()
            text, spans = _text_and_spans(record, id, each["added"], each.get("char_span"))
            if any(row.text == text for row in standing.values()):
                raise InputError(f"there is a phrase {text!r} already: draw further boxes of it")
            made = [Act(text, "added", spans=spans)]
        else:
            id = str(each.get("id"))
            if id not in standing:
                raise InputError(f"there is no expression {id}")
            made = _acts_on(record, id, each, standing)
        for act in made:
            review.take(act, who)
        acts += made
        ids.append(id)
    return acts, [*dict.fromkeys(ids)]


def _acts_on(
    record: Record, id: str, wanted: JsonObject, standing: Mapping[str, Expression]
) -> list[Act]:
    row = standing[id]
    named = Act(row.text)
    if sum(other.text == row.text for other in standing.values()) > 1:
        named = Act(row.text, boxes=_corners_of(row), span=row.char_span)
    verdict = wanted.get("right")
    if verdict is not None and not isinstance(verdict, bool):
        raise InputError(
            f"expression {id}: 'right' should be true, false or null, not {verdict!r:.40}"
        )
    if "box" in wanted:
        return [_act_on_box(record, id, named, wanted, row)]
    if "new" in wanted:
        box = _new_box(record, id, wanted, standing)
        acts = [replace(named, says="new", new=box)]
        if verdict is not None and verdict != reviewer_verdict(box):
            acts.append(replace(named, boxes=None, box=box.bbox, right=verdict))
        return acts
    for word in ("gone", "absent"):
        if wanted.get(word) is True:
            return [replace(named, says=word)]
    if "text" in wanted:
        text, spans = _text_and_spans(record, id, wanted["text"], wanted.get("char_span"))
        is_same = text == row.text and spans["char_span"] == row.char_span
        return [] if is_same else [replace(named, says="text", text=text, spans=spans)]
    if "right" not in wanted or row.instances:
        raise InputError(f"expression {id}: nothing is said of it, or of its boxes")
    return [replace(named, right=verdict)]


def _box_among(boxes: Sequence[Instance], id: str, corners: Any) -> Instance:
    bbox = read_bbox(corners)
    for box in boxes:
        if box.bbox == bbox:
            return box
    raise InputError(f"expression {id}: there is no box {corners!r:.60}")


def _act_on_box(record: Record, id: str, named: Act, wanted: JsonObject, row: Expression) -> Act:
    box = _box_among(row.instances, id, wanted["box"])
    act = replace(named, box=box.bbox, right=wanted.get("right"))
    if wanted.get("gone") is True:
        return replace(act, says="gone", right=None)
    if "corners" in wanted:
        return replace(act, corners=_drawn(box, _clipped(record, id, wanted["corners"])).bbox)
    if act.right is None:
        raise InputError(f"expression {id}: nothing is said of a box")
    if act.right:  # a box without an area may be rejected alone
        _with_area(id, list(box.bbox))
    return act


def _new_box(
    record: Record, id: str, wanted: JsonObject, standing: Mapping[str, Expression]
) -> Instance:
    other = standing.get(str(wanted.get("of")))
    if wanted.get("of") is not None:
        return _box_among(other.instances if other else [], id, wanted["new"])
    x1, y1, x2, y2 = [_rounded(edge) for edge in _clipped(record, id, wanted["new"])]
    return Instance((x1, y1, x2, y2), evidence="person")


def _adapted_to_text(
    row: Expression, old: Expression | None, others: Sequence[Expression]
) -> Expression:
    """Remove from a row whose text is new what held for the old one; give it a known class."""
    stale = ["class"]
    for column in ("noun_chunk", "caption_span"):
        if getattr(row, column) == getattr(old, column, None):  # not set by the review
            stale.append(column)
    adapted = row.without(*stale)
    new_text = class_key(row.text)
    # Another expression may have the new text, or have it as its class.
    for other in others:
        name = other.class_name
        if name is not None and new_text in (class_key(other.text), class_key(name)):
            adapted.class_name = name
            break
    return adapted


def _with_ids(id: str, instances: Sequence[Instance]) -> list[Instance]:
    """Give the instances without an id one: "a.jpg#2.3" to the fourth of a.jpg#2."""
    taken = [instance.bbox_id for instance in instances if instance.bbox_id]
    names = (f"{id}.{number}" for number in count(len(taken)))
    free = (name for name in names if name not in taken)
    numbered = []
    for instance in instances:
        if not instance.bbox_id:
            instance = instance.copy()
            instance.bbox_id = next(free)
        numbered.append(instance)
    return numbered


def _text_and_spans(record: Record, id: str, text: Any, span: Any) -> tuple[str, Spans]:
    """Return a reviewer's new text, checked, and its places in captions."""
    caption = caption_of_spans(record)
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"expression {id}: 'text' should be a text")
    if span is not None and not is_place_of(text, span, caption):
        raise InputError(
            f"expression {id}: 'char_span' {span!r} is not the place of {text!r} in the caption"
        )
    spans: Spans = {"char_span": read_span(span)}
    if caption == record.get("caption"):
        # `char_span` is a place in the cleaned caption, `caption_span` in the caption as it came.
        # Only if nothing was cleaned do we know the second one, too.
        spans["caption_span"] = read_span(span)
    return text, spans


def _drawn(old: Instance, bbox: Bbox) -> Instance:
    """Return a box with the corners that a person drew in place of its own."""
    has_fractions = any(isinstance(edge, float) for edge in old.bbox)
    corners = []
    for new_edge, old_edge in zip(bbox, old.bbox, strict=True):
        # An edge that wasn't moved keeps all its digits.
        corners.append(old_edge if new_edge == old_edge else _rounded(new_edge, has_fractions))
    x1, y1, x2, y2 = corners
    drawn = old.moved((x1, y1, x2, y2)).with_null("score")
    drawn.outline = _shifted(old.outline, old.bbox, drawn.bbox) or drawn.outline
    drawn.evidence = "person"
    return drawn


def _shifted(outline: Sequence[Any] | None, old: Bbox, new: Bbox) -> list[float] | None:
    """Return the outline moved as the corners were; None for none, or where the size changed."""
    if not outline or not all(map(is_number, outline)):
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


def _with_area(id: str, corners: Any) -> Bbox:
    bbox = read_bbox(corners)
    if bbox is None or area(bbox) <= 0:
        raise InputError(
            f"expression {id}: a box should be [x1, y1, x2, y2] with x1 < x2 and y1 < y2, not"
            f" {corners!r}"
        )
    return bbox


def _clipped(record: Record, id: str, corners: Any) -> Bbox:
    """Return corners that a person drew, within the picture."""
    bbox = _with_area(id, corners)
    size = _size_of_picture(record)
    inside = clamp(bbox, size) if size else bbox
    if size and area(inside) <= 0:
        raise InputError(
            f"expression {id}: the box {corners} is outside of the picture, {size[0]} x {size[1]}"
        )
    return inside


def _rounded(edge: float, keeps_floats: bool = False) -> float:
    """Return 12 for 12.0, unless a box's other numbers are floats: they stay of one kind."""
    rounded = round(float(edge), 2)
    return int(rounded) if rounded.is_integer() and not keeps_floats else rounded
