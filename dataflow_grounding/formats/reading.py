"""Helpers to read formats: files and their entries, and rows completed to records.

Entries come with the place where they are, for errors that name it. `bad`, a BadEntries, takes each
picture that can't be read: it counts it, and the import goes on without it or raises ImportRefused.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import IO, Any, TypeAlias
from xml.etree import ElementTree

from dataflow_grounding._util.errors import (
    BrokenRow,
    InputError,
    RecordError,
    UnreadableReply,
    errors_as,
)
from dataflow_grounding._util.paths import kind_of, names_in, open_input
from dataflow_grounding._util.terminal import counted_items
from dataflow_grounding.boxes.geometry import Bbox, Size, area, box_of, clamp
from dataflow_grounding.boxes.regions import labels_as_stored, without_tag
from dataflow_grounding.data.bad_entries import BadEntries, ImportRefused
from dataflow_grounding.data.expressions import Expression, Instance, read_expressions
from dataflow_grounding.data.json_lists import read_json
from dataflow_grounding.data.records import (
    JsonObject,
    Record,
    Update,
    is_box,
    is_number,
    is_score,
    path_of,
    stated_size,
    whole_number,
)
from dataflow_grounding.data.rows import file_type_of, read_rows
from dataflow_grounding.engine.source import RowsOfImage, identify
from dataflow_grounding.english.spans import Span, clean_caption, find_spans, nearest_place
from dataflow_grounding.formats.format import Format, is_at_span
from dataflow_grounding.formats.imported import COLUMN, with_read
from dataflow_grounding.formats.stated_twice import CountedPlaces
from dataflow_grounding.images.files import Header, read_header
from dataflow_grounding.images.image import ImageFile, find_file, waits

# An expression of a picture after its key: `unite` makes one of those that have the same key.
KeyedExpression: TypeAlias = tuple[Any, dict[str, Any]]
ROUNDING = 0.5  # px by which a box may reach out of its image without a report
# Reports on an import; the boxes stay as they are.
_OTHER_SIZE = "pictures of another size than is stated, which no export takes"
_OUTSIDE = "boxes outside of their picture, which an export leaves out"
_BEYOND = "boxes that reach beyond their picture, which an export cuts"
# Counts of places in captions that an import doesn't take as they are.
OFF_SPANS = "offsets of places in captions that were off, taken from their words"
_LOST_SPANS = "places in captions that don't have their phrase anywhere"
# Bytes of XML without the beginning of a tag: the parser keeps several copies of them in memory.
_MAX_BYTES_WITHOUT_TAG = 8 * 2**20
# Bytes that the parser gets at once: with each part it looks at an open tag from its start again.
_XML_PART = 2**18


def files_under(folder: str, endings: tuple[str, ...], key: str) -> list[str]:
    """Return the files at any depth of a folder with these endings, relative to it and sorted.

    `endings` are in lower case, and match those in capitals, too; "" is that of any file. Raises
    InputError, which names the setting `key`.
    """
    if kind_of(folder) != "folder":
        raise InputError(f"{key}: no folder {folder}")
    return [name for name in names_in(folder) if name.lower().endswith(endings)]


def file_of(path: str, name: str) -> str:
    """Return the data file `name` in a folder `path`; `path` itself where it is no folder."""
    if kind_of(path) != "folder":
        return path
    inside = os.path.join(path, name)
    if kind_of(inside):
        return inside
    # Other tools have other names for it: the only file with its ending is taken.
    _, ending = os.path.splitext(name)
    others = files_under(path, (ending,), "PATH")
    nearby = [other for other in others if os.path.dirname(other) in ("", "annotations")]
    if len(nearby) == 1:
        return os.path.join(path, nearby[0])
    why = "".join(counted_items(f"; its {ending} files", others))
    raise InputError(f"{path} has no {name}: name the file itself{why}")


def read_lines(path: str, name: str, bad: BadEntries) -> Iterator[tuple[str, Update]]:
    """Yield where each object of a file of rows is, `FILE, line 3`, and the object."""
    file = file_of(path, name)
    unit = "line" if file_type_of(file) == "jsonl" else "entry"
    for row in read_rows(file):
        where = f"{file}, {unit} {row.line}"
        if row.data is not None:
            yield where, dict(row.data)
        else:
            bad.note(f"{where}: {row.error}")


def read_whole(file: str) -> Any:
    """Return the one value that a JSON file holds; InputError for JSON lines or `null`, too."""
    with errors_as(InputError, f"can't read {file}"):
        data = read_json(file)  # None for either
    if data is None:
        raise InputError(f"{file} holds JSON lines or null, and should be one JSON value")
    return data


def unite(keyed: Iterable[KeyedExpression]) -> list[dict[str, Any]]:
    """Return one expression for each key: the first that has it, with the boxes of all that do."""
    by_key: dict[Any, dict[str, Any]] = {}
    for key, expression in keyed:
        if key not in by_key:
            by_key[key] = {**expression, "instances": []}  # a list of its own, which grows
        by_key[key]["instances"] += expression["instances"]
    expressions = list(by_key.values())
    _set_unique_ids(expressions)
    return expressions


def _set_unique_ids(expressions: list[dict[str, Any]]) -> None:
    """Make ids that come twice differ: "7", "7", "7~2" become "7", "7~3", "7~2"."""
    ids = [expression.get("expression_id") for expression in expressions]
    taken = {str(own_id) for own_id in ids if own_id is not None}
    # by an id, the number that was put after it last, so that it isn't looked for from 2 each time
    last_number_of: dict[Any, int] = {}
    for expression, own_id in zip(expressions, ids, strict=True):
        if own_id is None:
            continue
        if own_id not in last_number_of:  # the first of an id keeps it
            last_number_of[own_id] = 1
            continue
        number = last_number_of[own_id] + 1
        while f"{own_id}~{number}" in taken:
            number += 1
        last_number_of[own_id] = number
        expression["expression_id"] = f"{own_id}~{number}"
        taken.add(f"{own_id}~{number}")


class _BoundedXml:
    """A file of XML for a parser that stops at a text or attribute that could fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._since_tag = 0  # bytes read since the last `<`

    def read(self, size: int = -1, /) -> bytes:
        # The parser asks for fewer bytes by `size`, and takes more.
        data = self._file.read(_XML_PART)
        last_tag = data.rfind(b"<")
        if last_tag >= 0:
            self._since_tag = len(data) - last_tag
        else:
            self._since_tag += len(data)
        if self._since_tag > _MAX_BYTES_WITHOUT_TAG:
            raise ValueError(
                f"over {_MAX_BYTES_WITHOUT_TAG >> 20} MiB of it are one text or attribute"
            )
        return data


def read_xml(path: str, root: str = "") -> Iterator[ElementTree.Element]:
    """Yield the child elements of an XML file's root, each taken out when the next is asked for.

    Raises BrokenRow where the root is another element than `root`, if that is given.
    """
    open_elements: list[ElementTree.Element] = []  # from the root to the innermost
    try:
        with errors_as(InputError, f"can't read {path}"), open_input(path) as file:
            if b"<!DOCTYPE" in file.read(2**16):
                # expat itself stops a later DOCTYPE that would fill the memory.
                raise ValueError(
                    "it has a DOCTYPE, with which 1 KB can fill the memory: take it out"
                )
            file.seek(0)
            for event, element in ElementTree.iterparse(_BoundedXml(file), ("start", "end")):
                if event == "start":
                    if root and not open_elements and element.tag != root:
                        raise BrokenRow(f"it is a <{element.tag}>, not an <{root}>")
                    open_elements.append(element)
                    continue
                open_elements.pop()
                if len(open_elements) == 1:  # a child of the root ended
                    yield element
                    open_elements[0].clear()  # which would keep all of its children in memory
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path} is not XML that can be read: {error}") from None


def picture_header(folder: str, name: Any, where: str) -> Header:
    """Return a picture's header, with its size upright; InputError begins with `where`."""
    try:
        return _header_at(find_file(name, (folder,)))
    except RecordError as error:
        raise InputError(f"{where}: {error}") from None


@lru_cache(maxsize=8)  # `complete_rows` asks for a record's, and then `with_sizes`
def _header_at(file: ImageFile) -> Header:
    return read_header(file.path)


@contextmanager
def entry_errors(where: str, bad: BadEntries | None = None) -> Iterator[None]:
    """Turn what goes wrong while an entry is read into an InputError that begins with `where`.

    With `bad` the error isn't raised: `bad` counts it, and the entry is left out. A format yields
    its row inside of the block, so `complete_rows` finds the row's place in `bad.place`. Inside of
    that, a block without `bad` around each object names the object.
    """
    if bad is None:
        with _errors_with_place(where):
            yield
        return
    outer_place = bad.place
    bad.place = where
    try:
        with _errors_with_place(where):
            yield
    except ImportRefused:  # an InputError, too, that ends the import
        raise
    except InputError as error:
        bad.note(str(error))
    finally:
        bad.place = outer_place


@contextmanager
def _errors_with_place(where: str) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise InputError(f"{where}: no {error.args[0]!r} in it") from None
    except (TypeError, LookupError, AttributeError):  # whose texts are about Python
        why = "a value is missing, or of another type"
        raise InputError(f"{where}: is not of this format ({why})") from None
    except (BrokenRow, UnreadableReply, ValueError, ArithmeticError) as error:
        raise InputError(f"{where}: is not of this format ({error})") from None


def complete_rows(
    rows: Iterable[Update], path: str, format: Format, folder: str
) -> Iterator[Update]:
    """Yield the rows that a format has read of `path`, completed to records.

    They get ids, status, scores, and spans, which are mended where they don't hold their phrase.
    Boxes without an area are left out, and so are expressions that lose all of their boxes by that.
    Stated sizes are compared with those of the pictures in `folder`.
    """
    bad = format.bad
    # Whether a row without phrases says that its picture is a background. Whole records have a
    # column for that.
    empty_is_background = format.carries.empty and not format.carries.columns
    for number, record in enumerate(_identified(rows), 1):
        where = f"{path}, record {number}"
        # Such as "a.jsonl, line 3": set by the format's own `entry_errors`, in which it has yielded
        # the row. "" where it yields its rows outside of that.
        entry_place = bad.place
        with entry_errors(where, bad):
            as_stored = _labelled_as_stored(record, folder, format.passed_over)
            if as_stored is not None:
                why, remedy = as_stored
                bad.note(f"{entry_place or where}: {why}", remedy)
                continue
            with entry_errors(entry_place or f"{where} ({path_of(record)})"):
                completed, counts = _complete_row(record, empty_is_background)
            format.passed_over.add_all(counts)
            bad.read()
            yield completed
    bad.finish()
    format.remarks += format.stated_twice.remarks()


def _identified(rows: Iterable[Update]) -> Iterator[Record]:
    rows_of_image: RowsOfImage = {}  # so that ids of rows without their own differ
    count_without_picture = 0
    for row in rows:
        record = Record(row)
        identify(record, "image_path", image_root=None, rows_of_image=rows_of_image)
        if record.image_id is None:  # no path to name it by: its ids are record, record@2, …
            record.image_id = "record"
            record.occurrence = count_without_picture
            count_without_picture += 1
        yield record


def _labelled_as_stored(
    record: Record, folder: str, passed_over: Counter[str]
) -> tuple[str, str] | None:
    """Return what is wrong and what to do where sides are stated as before EXIF turns a picture.

    Where only the upright picture holds the boxes, they are of that one, and the record gets its
    sides (HumanSignal/label-studio issue 6608).
    """
    stated = stated_size(record)
    may_be_remote = waits(path_of(record), (folder,))  # it isn't fetched for that
    if stated is None or may_be_remote:
        return None
    try:
        file = find_file(record.get("image_path"), (folder,))
        header = _header_at(file)
    except (RecordError, InputError):  # an import does without the picture
        return None
    if header.stored_size == header.size or stated != header.stored_size:
        return None
    is_in_stored = _holds_boxes(record, header.stored_size)
    if _holds_boxes(record, header.size) and not is_in_stored:
        record["width"], record["height"] = header.size
        passed_over["stated sizes of pictures as stored, with boxes of the upright picture"] += 1
        return None
    why = labels_as_stored(path_of(record), stated)
    if _holds_boxes(record, header.size):
        why = f"{why}, or of the upright picture: they may be of either"
    return why, without_tag(file.path)


def _holds_boxes(record: Record, size: Size) -> bool:
    """Whether a picture of that size has all boxes in it that can be read."""
    for expression in record.get("expressions") or ():
        for instance in expression.get("instances") or ():
            bbox = instance.get("bbox")
            if is_box(bbox) and reaches_beyond(box_of(bbox), size):
                return False
    return True


def check_expression(expression: JsonObject) -> None:
    """Raise BrokenRow for what `complete_rows` would refuse when its place isn't known any more."""
    for box in Expression.from_json(expression).instances:
        _check_box(box)


def _is_less_than_a_pixel(bbox: Sequence[float]) -> bool:
    """Whether a box with an area is a part of the first pixel: its numbers are shares of sides."""
    x1, y1, x2, y2 = bbox
    is_in_first_pixel = 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
    return is_in_first_pixel and (x2 - x1 < 1 or y2 - y1 < 1)


def _complete_row(record: Record, empty_is_background: bool) -> tuple[Update, Counter[str]]:
    """Return the completed record, and counts of what of it isn't taken as it is."""
    passed_over = Counter[str]()
    completed: Update = {"image_id": None, **record, **_stated_sides(record)}
    if record.get("image_id") is None:
        completed["image_id"] = record.unique_id
    expressions, caption = _completed_expressions(record, passed_over)
    completed["cleaned_caption"] = caption
    completed["expressions"] = expressions
    # `expressions` may be empty because boxes without an area were left out. Only a row that had
    # none in the file says that its picture is a background.
    came_empty = not record["expressions"]
    if empty_is_background and came_empty and "background" not in record:
        completed["background"] = True
    # The column `imported` has what an export gives back. `read` in it are the numbers of the items
    # that became boxes: a record of an earlier import states them already.
    imported = record.get(COLUMN)
    if isinstance(imported, dict) and "read" not in imported:
        completed[COLUMN] = with_read(imported, expressions)
    return completed, passed_over


def _completed_expressions(
    record: Record, passed_over: Counter[str]
) -> tuple[list[dict[str, Any]], str]:
    """Return expressions with ids, status and spans, and the caption that the spans are of."""
    stated_caption = record.get("cleaned_caption") or record.get("caption")
    if not isinstance(stated_caption, str):
        stated_caption = ""
    stated_expressions = read_expressions(record, "expressions")
    with_area = _without_boxes_of_no_area(stated_expressions, passed_over)
    expressions = [expression.to_json() for expression in with_area]
    caption = _set_spans(expressions, stated_caption, passed_over)  # as it came, or cleaned
    for expression in expressions:
        status = "grounded" if expression["instances"] else "none"
        expression.setdefault("status", status)
        _name_boxes(expression)
    return expressions, caption


def _name_boxes(expression: dict[str, Any]) -> None:
    """Give boxes of the expression `a#0` without an id `a#0.0`, `a#0.1` and so on."""
    taken = {str(instance.get("bbox_id")) for instance in expression["instances"]}
    number = 0
    for instance in expression["instances"]:
        if "bbox_id" in instance:
            continue
        while f"{expression['expression_id']}.{number}" in taken:
            number += 1
        instance["bbox_id"] = f"{expression['expression_id']}.{number}"
        number += 1


def _stated_sides(record: Record) -> dict[str, int]:
    sides = {}
    for name in ("width", "height"):
        if record.get(name) is not None:
            side = whole_number(record[name])
            if side is None:
                raise BrokenRow("width and height should be whole numbers of pixels")
            sides[name] = side
    return sides


def _set_spans(
    expressions: list[dict[str, Any]], stated_caption: str, passed_over: Counter[str]
) -> str:
    """Set each expression's `char_span`, and return the caption that the spans are of."""
    is_any_stated = any("char_span" in expression for expression in expressions)
    # Stated spans count the letters of the caption that came: it isn't cleaned then.
    caption = stated_caption
    if expressions and not is_any_stated:
        caption = clean_caption(stated_caption)
    texts = [expression["text"] for expression in expressions]
    found_spans: list[Span | None] = []
    if any(map(_needs_span, expressions)):
        # All are looked for, because they take their places in the caption from each other.
        found_spans = find_spans(texts, caption)
    for index, expression in enumerate(expressions):
        span = expression.get("char_span")
        if _needs_span(expression):
            span = found_spans[index]
        elif span is not None and not is_at_span(texts[index], span, caption):
            span = _mended_span(texts[index], span, caption, passed_over)
        expression["char_span"] = list(span) if span else None
    return caption


def _needs_span(expression: JsonObject) -> bool:
    """Whether no place is stated; None says that the phrase is nowhere in the caption."""
    span = expression.get("char_span", ())
    return span is not None and not span


def _mended_span(text: str, span: Any, caption: str, passed_over: Counter[str]) -> Span | None:
    """Return the place of a text that is nearest to where it was stated; None if it is nowhere."""
    has_start = isinstance(span, (list, tuple)) and is_number(span[0])
    stated_start = span[0] if has_start else 0
    place = nearest_place(text, stated_start, caption)
    passed_over[OFF_SPANS if place else _LOST_SPANS] += 1
    return place


def _without_boxes_of_no_area(
    expressions: Iterable[Expression], passed_over: Counter[str]
) -> Iterator[Expression]:
    """Yield the expressions; one that loses all of its boxes is left out, too."""
    for expression in expressions:
        boxes = expression.instances
        for box in boxes:
            _check_box(box)
        expression.instances = [box for box in boxes if area(box.bbox) > 0]
        passed_over["boxes without an area"] += len(boxes) - len(expression.instances)
        if boxes and not expression.instances:
            passed_over["phrases left without a box"] += 1
        else:
            yield expression


def _check_box(box: Instance) -> None:
    x1, y1, x2, y2 = box.bbox
    if x1 > x2 or y1 > y2:
        raise BrokenRow(f"the box {[x1, y1, x2, y2]} ends before it begins")
    if _is_less_than_a_pixel(box.bbox):
        raise BrokenRow(
            f"the box {[x1, y1, x2, y2]} is less than a pixel: are its numbers shares of the sides?"
        )
    score = box.stated("score")
    if not is_score(score):
        raise BrokenRow(f"the score {score!r} is not between 0 and 1")


def reaches_beyond(box: Bbox, size: Size) -> bool:
    """Whether a box reaches out of a picture of that size, by more than ROUNDING."""
    x1, y1, x2, y2 = box
    width, height = size
    is_left_or_above = min(x1, y1) < -ROUNDING
    return is_left_or_above or x2 > width + ROUNDING or y2 > height + ROUNDING


class Doubts(CountedPlaces):
    """What of an import can't be right."""

    def look_at(self, record: Update, stated: Size | None, real: Size | None) -> None:
        """Take in a record, the size that it states, and that of its picture, if they are known."""
        name = path_of(record)
        size = stated or real  # boxes count pixels of the stated size, if there is one
        if size is None:
            return
        sides = f"{size[0]} x {size[1]} px"
        if real is not None and real != size:
            self.add(_OTHER_SIZE, f"{name} ({sides} stated, {real[0]} x {real[1]} px found)")
        for expression in record["expressions"]:
            for instance in expression["instances"]:
                box = box_of(instance["bbox"])
                is_outside = area(clamp(box, size)) <= 0
                if is_outside or reaches_beyond(box, size):
                    where = f"{expression['text']!r:.60} {list(box)} in {name} ({sides})"
                    self.add(_OUTSIDE if is_outside else _BEYOND, where)


def with_sizes(
    records: Iterable[Update], folder: str, doubts: Doubts | None = None
) -> Iterator[Update]:
    """Yield the records; one that states no size gets that of its upright picture.

    A stated size stays, because boxes are in it; `doubts` compares it with the picture's.
    """
    for record in records:
        stated = stated_size(record)
        real = None
        # A remote picture is fetched only for a missing size, not just to compare.
        may_be_remote = waits(path_of(record), (folder,))
        is_compared = doubts is not None and not may_be_remote
        if stated is None or is_compared:
            with suppress(InputError):  # a picture that can't be read leaves its size unknown
                real = picture_header(folder, record.get("image_path"), where="").size
        if stated is None and real is not None:
            record |= {"width": real[0], "height": real[1]}
        if doubts is not None:
            doubts.look_at(record, stated, real)
        yield record
