"""A record as the pages' scripts read it: JSON, with offsets in UTF-16 units."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, ImageMissing, InputError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.matching import scored_boxes, things_of
from dataflow_grounding.data.classes import class_key, classes_of
from dataflow_grounding.data.expressions import Bbox, Expression, read_any_expressions
from dataflow_grounding.data.records import (
    REMARK,
    STATUSES,
    Record,
    Update,
    annotated_column,
    caption_of_spans,
    doubt_of_reply,
    path_of,
    stated_size,
)
from dataflow_grounding.evaluation.metrics.annotations import is_span
from dataflow_grounding.images.drawing import PAGE_PALETTE
from dataflow_grounding.images.image import ImageFile, find_image

_TEXTS = load_table(__package__, "texts.yaml")  # what pages say of marks, statuses and records
STATUS_MEANING: dict[str, str] = _TEXTS["statuses"]
MEANING: dict[str, str] = {**_TEXTS["marks"], **STATUS_MEANING}
"""Marks and statuses that a page filters records by, in its order, and what each means."""
FIRST: tuple[str, ...] = (*_TEXTS["marks"],)
"""The marks whose records a report shows first."""
BoxPlace: TypeAlias = tuple[str, int]  # an expression's id, and the index of one of its boxes


class Picture(NamedTuple):
    """A record's picture as a page has it; what doesn't apply is ""."""

    size: Size | None = None  # upright, in pixels; None where it isn't known
    thumbnail: str = ""  # the address of a small copy
    full: str = ""  # the address of the file
    missing: str = ""  # why there is no picture


OTHER_CAPTIONS = "other_captions"  # of a picture whose records a review has joined
_NO_PICTURE = Picture()


class PageNames:
    """Names that a page's records share, numbered as they come, because a number is shorter."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}  # by each name's key, and by each of its spellings

    def number_of(self, name: str) -> int:
        """Return the number of a name, from 0."""
        if name not in self._numbers:
            # The spelling is new, but the name needn't be: "Cup" gets the number of "cup".
            # Spellings are noted, too, because making a key takes time.
            key = self._key(name)
            if key not in self._numbers:
                self._numbers[key] = len(self.names)
                self.names.append(name)
            self._numbers[name] = self._numbers[key]
        return self._numbers[name]

    def _key(self, name: str) -> str:
        """Return what the spellings of a name share. Here each spelling is a name of its own."""
        return name


class PageClasses(PageNames):
    """The classes of a page's records: one has one colour on all of it, in any spelling."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__()
        for name in names:
            self.number_of(name)

    def _key(self, name: str) -> str:
        return class_key(name)

    def color_of(self, name: str) -> int:
        """Return the colour of a class, its index in PAGE_PALETTE."""
        return self.number_of(name) % len(PAGE_PALETTE)


def known_classes(results: str) -> PageClasses:
    """Return the classes that are listed for RESULTS; none without a list that can be read."""
    try:
        return PageClasses(classes_of(results))
    except InputError:
        return PageClasses()


def picture_column(record: Record) -> str:
    return "image_path" if "image_path" in record else "image"


def file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def file_of_picture(record: Record) -> ImageFile:
    """Return the file of a record's picture. Raises RecordError where it isn't found."""
    return find_image(record, picture_column(record))


def why_missing(error: Exception | None = None) -> str:
    """Return what a page says in place of a picture; None says that it isn't there."""
    if error is None or isinstance(error, (ImageMissing, BrokenRow, FileNotFoundError)):
        return "The image file is not there."
    return "The image file can't be read."


class Phrases(NamedTuple):
    """The expressions of a record, and which of their boxes are of one thing."""

    rows: dict[str, Expression]  # by id
    problem: str  # why they can't be read; else ""
    things: dict[BoxPlace, list[BoxPlace]]  # those with several boxes, by each of these
    checks: dict[str, str]  # what a check said of each, by id; "" without one
    statuses: dict[str, str]  # as they are shown
    kind: str  # the column that they are of

    @classmethod
    def of(cls, rows: dict[str, Expression], kind: str) -> "Phrases":
        checks = {id: row.verdict if row.was_checked else "" for id, row in rows.items()}
        statuses = {}
        for id, row in rows.items():
            assumed = "grounded" if row.instances else "pending"
            statuses[id] = row.status if row.status in STATUSES else assumed
        return cls(rows, "", boxes_of_same_thing(rows), checks, statuses, kind)

    def is_of_surer_box(self, id: str, index: int) -> bool:
        """Return whether another box of a box's thing is shown, and judged, in its place."""
        return (id, index) in self.things and self.things[id, index][0] != (id, index)


def phrases_of(record: Record) -> Phrases:
    kind = annotated_column(record)
    try:
        return Phrases.of(expressions_of(record), kind)
    except BrokenRow as error:
        return Phrases({}, str(error), {}, {}, {}, kind)


def id_of(record: Record) -> str:
    return str(record.get("image_id") or blotted_message(path_of(record)) or "no id")


class BoxView(NamedTuple):
    """A box as the pages show it. What is None isn't in its JSON, but for the score."""

    bbox: Bbox
    score: float | None
    evidence: str
    # On a page that shows each thing once: the places of the phrases with further boxes of it, and
    # for such a box the place of the phrase whose box is shown.
    same: list[int] | None = None
    shownAs: int | None = None

    def to_json(self) -> Update:
        row = {**self._asdict(), "bbox": list(self.bbox)}
        return {key: row[key] for key in row if row[key] is not None or key == "score"}


@dataclass
class ExpressionView:
    """An expression as the pages show it; columns that are missing, or wrong, can be shown."""

    index: int
    id: str
    text: str
    class_name: str | None
    status: str
    meaning: str  # of the status
    color: int | None  # an index in PAGE_PALETTE, of those with boxes
    span: list[int] | None
    check: str
    reasons: list[str]
    disputed: bool
    instances: list[BoxView]

    def to_json(self) -> Update:
        row: Update = {**vars(self), "instances": [box.to_json() for box in self.instances]}
        name = row.pop("class_name")
        return row if name is None else {**row, "class": name}


class View(NamedTuple):
    """A record as `record.js` shows it, and as a review's page changes it.

    Boxes are in pixels of the upright picture, and a `span` is in UTF-16 units of the caption.
    Width and height are 0 where they aren't known.
    """

    id: str
    path: str
    model: str
    width: int
    height: int
    thumbnail: str
    full: str
    missing: str
    caption: str
    captions: list[str]
    kind: str
    problem: str
    notes: list[str]
    expressions: list[ExpressionView]

    def to_json(self) -> Update:
        return {**self._asdict(), "expressions": [each.to_json() for each in self.expressions]}


def view_of(
    record: Record,
    picture: Picture = _NO_PICTURE,
    classes: PageClasses | None = None,
    *,
    phrases: Phrases | None = None,
    each_thing_once: bool = False,
) -> View:
    """Return a record as pages show it; its new classes are added to `classes`."""
    if phrases is None:
        phrases = phrases_of(record)
    width, height = picture.size or stated_size(record) or (0, 0)
    caption = caption_of_spans(record)
    spans = Utf16Spans(caption)
    classes = classes or PageClasses()
    place_of_id = {id: place for place, id in enumerate(phrases.rows)} if each_thing_once else {}
    expressions: list[ExpressionView] = []
    with_boxes = 0
    for index, (id, row) in enumerate(phrases.rows.items()):
        shown = _expression_view(index, id, phrases, spans, place_of_id)
        if row.instances:  # a class has one colour, and phrases without one have them in turn
            name = shown.class_name
            shown.color = with_boxes % len(PAGE_PALETTE) if name is None else classes.color_of(name)
            with_boxes += 1
        expressions.append(shown)
    return View(
        id=id_of(record),
        path=blotted_message(path_of(record)),
        model=str(record.get("model") or ""),
        width=width,
        height=height,
        thumbnail=picture.thumbnail,
        full=picture.full,
        missing=picture.missing,
        caption=caption,
        captions=record.get(OTHER_CAPTIONS) or [],
        kind=phrases.kind,
        problem=phrases.problem,
        notes=_notes(record, (width, height)),
        expressions=expressions,
    )


def _expression_view(
    index: int, id: str, phrases: Phrases, spans: "Utf16Spans", place_of_id: Mapping[str, int]
) -> ExpressionView:
    row = phrases.rows[id]
    status, check = phrases.statuses[id], phrases.checks[id]
    reason = row.reason
    if not reason and status == "unsupported":
        reason = STATUS_MEANING[status]
    check_reason = row.verification.reason if row.verification else ""
    span = row.char_span
    return ExpressionView(
        index=index,
        id=id,
        text=row.text,
        class_name=stated_class(row),
        status=status,
        meaning=STATUS_MEANING[status],
        color=None,
        span=spans.of(span) if span and is_span(span, spans.length) else None,
        check=check,
        # A reason may be only the check's verdict again, such as "verified".
        reasons=[why for why in (reason, row.doubt, check_reason) if why and why != check],
        disputed=row.disagreement is True,
        instances=[*_box_views(id, phrases, place_of_id)],
    )


def _box_views(id: str, phrases: Phrases, place_of_id: Mapping[str, int]) -> Iterator[BoxView]:
    """Yield a phrase's boxes; with `place_of_id`, of each thing the surest is shown for all."""
    for number, box in enumerate(phrases.rows[id].instances):
        view = BoxView(box.bbox, box.score, box.evidence or "")
        if place_of_id and (id, number) in phrases.things:
            surest, *others = phrases.things[id, number]
            if surest == (id, number):
                view = view._replace(same=[place_of_id[other] for other, _ in others])
            else:
                view = view._replace(shownAs=place_of_id[surest[0]])
        yield view


def _notes(record: Record, size: Size) -> list[str]:
    notes = [note for name, note in _TEXTS["notes"].items() if record.get(name) is True]
    if doubt := doubt_of_reply(record):
        notes.append(_TEXTS["doubtful"].format(blotted_message(doubt)))
    remark = record.get(REMARK)  # what the model said next to its answer
    if remark and isinstance(remark, str):
        notes.append(_TEXTS["remark"].format(blotted_message(remark)))
    stated = stated_size(record)
    if stated is not None and stated != size:
        notes.append(_TEXTS["other_size"].format(*stated, *size))
    return notes


def expressions_of(record: Record) -> dict[str, Expression]:
    """Return expressions, else region captions or regions, by id; a second of an id is `ID~2`."""
    expressions: dict[str, Expression] = {}
    if not annotated_column(record):
        return expressions
    # The last number put after each id: with thousands of equal ids, trying all would take long.
    last_number_of = defaultdict[str, int](lambda: 1)
    for expression in read_any_expressions(record):
        id = expression.expression_id
        key = id
        while key in expressions:  # `ID~2` may be the id of another expression
            last_number_of[id] += 1
            key = f"{id}~{last_number_of[id]}"
        expressions[key] = expression
    return expressions


def boxes_of_same_thing(
    expressions: Mapping[str, Expression],
) -> dict[BoxPlace, list[BoxPlace]]:
    """Return the boxes of each thing that has several, the surest first, by each of these boxes.

    Phrases of one class may name one thing: "a red cup", "the cup on the left".
    """
    ids_of_class: dict[str, list[str]] = {}
    for id, row in expressions.items():
        # A negative phrase was made up to be absent: a box of it isn't of the thing.
        has_class = row.class_name is not None and not row.is_negative
        # A phrase without a class has several boxes of a thing only where they are equal.
        key = class_key(row.class_name or "") if has_class else f"\n{id}"
        ids_of_class.setdefault(key, []).append(id)
    boxes_by_box: dict[BoxPlace, list[BoxPlace]] = {}
    for ids in ids_of_class.values():
        if len(ids) == 1 and len(expressions[ids[0]].instances) < 2:
            continue
        # A thing [(0, 1), (2, 0)] has two boxes. The surest is box 1 of the phrase ids[0], the
        # other is box 0 of ids[2].
        for thing in things_of([scored_boxes(expressions[id].instances) for id in ids]):
            if len(thing) == 1:
                continue
            boxes = [(ids[phrase], index) for phrase, index in thing]
            for box in boxes:
                boxes_by_box[box] = boxes
    return boxes_by_box


class Utf16Spans:
    """Turns spans of code points in a text into spans of UTF-16 units, which scripts count in."""

    def __init__(self, text: str) -> None:
        self.length = len(text)
        # The indices of characters beyond U+FFFF, each of which is two units. So an end of a span
        # moves by one for each of them that is before it.
        self._wide: list[int] = []
        if not text.isascii():
            self._wide = [index for index, sign in enumerate(text) if sign > "\uffff"]

    def of(self, span: Sequence[int]) -> list[int]:
        return [end + bisect_left(self._wide, end) for end in span]


def stated_class(row: Expression) -> str | None:
    name = row.class_name
    return name if name is not None and name.strip() else None
