"""A record as the pages' scripts read it: JSON, with offsets in UTF-16 units."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias
from zlib import crc32

from dataflow_grounding._util.errors import BrokenRow, ImageMissing, InputError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.matching import scored_boxes, things_of
from dataflow_grounding.data.classes import class_key, classes_of
from dataflow_grounding.data.records import (
    DOUBT,
    REMARK,
    STATUSES,
    Record,
    annotated_column,
    any_expression_rows,
    caption_of_spans,
    doubt_of_reply,
    is_negative,
    is_number,
    path_of,
    stated_size,
    verdict_of,
    was_checked,
)
from dataflow_grounding.data.verification import read_verification
from dataflow_grounding.evaluation.metrics.annotations import is_span
from dataflow_grounding.images.drawing import PAGE_PALETTE
from dataflow_grounding.images.image import ImageFile, find_image

_TEXTS = load_table(__package__, "texts.yaml")  # what pages say of marks, statuses and records
STATUS_MEANING: dict[str, str] = _TEXTS["statuses"]
MEANING: dict[str, str] = {**_TEXTS["marks"], **STATUS_MEANING}
"""Marks and statuses that a page filters records by, in its order, and what each means."""
FIRST: tuple[str, ...] = (*_TEXTS["marks"],)
"""The marks whose records a report shows first."""
View: TypeAlias = dict[str, Any]  # a record as `view_of` returns it
Expression: TypeAlias = dict[str, Any]  # as `expression_rows` returns it
BoxPlace: TypeAlias = tuple[str, int]  # an expression's id, and the index of one of its boxes


class Picture(NamedTuple):
    """A record's picture as a page has it; what doesn't apply is ""."""

    size: Size | None = None  # upright, in pixels; None where it isn't known
    thumbnail: str = ""  # the address of a small copy
    full: str = ""  # the address of the file
    missing: str = ""  # why there is no picture


OTHER_CAPTIONS = "other_captions"  # of a picture whose records a review has joined
_NO_PICTURE = Picture()
_MOST_NAMES = 5000  # that are numbered


class PageNames:
    """Names that a page's records share, numbered as they come, because a number is shorter."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}  # by each name's key, and by each of its spellings

    def number_of(self, name: str) -> int | None:
        """Return the number of a name, from 0; None for one beyond the first _MOST_NAMES."""
        if name in self._numbers:
            return self._numbers[name]
        # The spelling is new, but the name needn't be: "Cup" gets the number of "cup". Spellings
        # are noted, too, because making a key takes time.
        key = self._key(name)
        if key not in self._numbers:
            if len(self.names) >= _MOST_NAMES:
                return None
            self._numbers[key] = len(self.names)
            self.names.append(name)
        self._numbers[name] = self._numbers[key]
        return self._numbers[key]

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
        number = self.number_of(name)
        if number is None:  # beyond _MOST_NAMES: the same class still has the same colour
            number = crc32(class_key(name).encode(errors="replace"))
        return number % len(PAGE_PALETTE)


def known_classes(results: str) -> PageClasses:
    """Return the classes that are listed for RESULTS; none without a list that can be read."""
    try:
        return PageClasses(classes_of(results))
    except InputError:
        return PageClasses()


def picture_column(record: Mapping[str, Any]) -> str:
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

    def is_of_surer_box(self, id: str, index: int) -> bool:
        """Return whether another box of a box's thing is shown, and judged, in its place."""
        return (id, index) in self.things and self.things[id, index][0] != (id, index)


def phrases_of(record: Mapping[str, Any]) -> Phrases:
    try:
        rows = expressions_of(record if isinstance(record, Record) else Record(record))
    except BrokenRow as error:
        return Phrases({}, str(error), {}, {}, {}, annotated_column(record))
    checks = {id: verdict_of(row) if was_checked(row) else "" for id, row in rows.items()}
    statuses = {id: _shown_status(row) for id, row in rows.items()}
    things = boxes_of_same_thing(rows)
    return Phrases(rows, "", things, checks, statuses, annotated_column(record))


def id_of(record: Mapping[str, Any]) -> str:
    return str(record.get("image_id") or blotted_message(path_of(record)) or "no id")


def view_of(
    record: Mapping[str, Any],
    picture: Picture = _NO_PICTURE,
    classes: PageClasses | None = None,
    *,
    phrases: Phrases | None = None,
    each_thing_once: bool = False,
) -> View:
    """Return a record as `record.js` shows it, and as a review's page changes it.

    Boxes are in pixels of the upright picture, and a `span` is in UTF-16 units of the caption.
    Width and height are 0 where they aren't known. New classes are added to `classes`.
    """
    caption = caption_of_spans(record)
    if phrases is None:
        phrases = phrases_of(record)
    spans = Utf16Spans(caption)
    expressions = []
    for index, id in enumerate(phrases.rows):
        expressions.append(_expression_view(index, id, phrases, spans))
    _set_colors(expressions, classes or PageClasses())
    if each_thing_once:
        _mark_same_things(expressions, phrases)
    width, height = picture.size or stated_size(record) or (0, 0)
    return {
        "id": id_of(record),
        "path": blotted_message(path_of(record)),
        "model": str(record.get("model") or ""),
        "width": width,
        "height": height,
        "thumbnail": picture.thumbnail,
        "full": picture.full,
        "missing": picture.missing,
        "caption": caption,
        "captions": record.get(OTHER_CAPTIONS) or [],
        "kind": phrases.kind,
        "problem": phrases.problem,
        "notes": _notes(record, (width, height)),
        "expressions": expressions,
    }


def _set_colors(expressions: Sequence[dict[str, Any]], classes: PageClasses) -> None:
    """Set `color`, an index in PAGE_PALETTE, of those with boxes: one for a class, else in turn."""
    with_boxes = [expression for expression in expressions if expression["instances"]]
    for number, expression in enumerate(with_boxes):
        if "class" in expression:
            expression["color"] = classes.color_of(expression["class"])
        else:
            expression["color"] = number % len(PAGE_PALETTE)


def _notes(record: Mapping[str, Any], size: Size) -> list[str]:
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
    for expression in any_expression_rows(record):
        id = str(expression["expression_id"])
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
        has_class = isinstance(row.get("class"), str) and not is_negative(row)
        # A phrase without a class has several boxes of a thing only where they are equal.
        key = class_key(row["class"]) if has_class else f"\n{id}"
        ids_of_class.setdefault(key, []).append(id)
    boxes_by_box: dict[BoxPlace, list[BoxPlace]] = {}
    for ids in ids_of_class.values():
        if len(ids) == 1 and len(expressions[ids[0]]["instances"]) < 2:
            continue
        # A thing [(0, 1), (2, 0)] has two boxes. The surest is box 1 of the phrase ids[0], the
        # other is box 0 of ids[2].
        for thing in things_of([scored_boxes(expressions[id]["instances"]) for id in ids]):
            if len(thing) == 1:
                continue
            boxes = [(ids[phrase], index) for phrase, index in thing]
            for box in boxes:
                boxes_by_box[box] = boxes
    return boxes_by_box


def _mark_same_things(expressions: Sequence[dict[str, Any]], phrases: Phrases) -> None:
    """Mark the boxes of each thing that has several, because a page shows the surest alone."""
    index_of_expression = {id: index for index, id in enumerate(phrases.rows)}
    for place, (surest, *others) in phrases.things.items():
        if place != surest:  # the map has the thing once for each of its boxes
            continue
        id_of_surest, box_index = surest
        index_of_surest = index_of_expression[id_of_surest]
        surest_box = expressions[index_of_surest]["instances"][box_index]
        # such as [2, 3], if expressions 2 and 3 have the others
        surest_box["same"] = [index_of_expression[id] for id, _ in others]
        for id, box_index in others:
            box = expressions[index_of_expression[id]]["instances"][box_index]
            box["shownAs"] = index_of_surest


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


def _shown_status(row: Expression) -> str:
    status = row.get("status")
    if status in STATUSES:
        return str(status)
    return "grounded" if row["instances"] else "pending"


def stated_class(row: Expression) -> str | None:
    name = row.get("class")
    return name if isinstance(name, str) and name.strip() else None


def _expression_view(index: int, id: str, phrases: Phrases, spans: Utf16Spans) -> dict[str, Any]:
    """Return an expression; columns that are missing, or wrong, get a value that can be shown."""
    row = phrases.rows[id]
    status = phrases.statuses[id]
    check = phrases.checks[id]
    span: Any = row.get("char_span")
    name = stated_class(row)
    class_column = {} if name is None else {"class": name}
    return {
        "index": index,
        "id": id,
        "text": row["text"],
        **class_column,
        "status": status,
        "meaning": STATUS_MEANING[status],
        "color": None,  # `_set_colors` gives one to those with boxes
        "span": spans.of(span) if is_span(span, spans.length) else None,
        "check": check,
        "reasons": _reasons(row, status, check),
        "disputed": row.get("disagreement") is True,
        "instances": [_box_view(instance) for instance in row["instances"]],
    }


def _reasons(row: Expression, status: str, check: str) -> list[str]:
    """Return why an expression has its status, why it is doubtful, and why a check judged it so."""
    reason = row.get("reason")
    if not reason and status == "unsupported":
        reason = STATUS_MEANING[status]
    verification = read_verification(row)
    check_reason = verification.reason if verification else ""
    # A reason may be only the check's verdict again, such as "verified".
    return [str(why) for why in (reason, row.get(DOUBT), check_reason) if why and why != check]


def _box_view(instance: Mapping[str, Any]) -> dict[str, Any]:
    score = instance["score"]
    if not is_number(score):
        score = None
    return {
        "bbox": list(instance["bbox"]),
        "score": score,
        "evidence": str(instance.get("evidence") or ""),
    }
