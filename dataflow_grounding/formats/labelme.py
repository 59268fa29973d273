"""LabelMe's files, which X-AnyLabeling writes too: a JSON file for each picture, in pixels.

A label is a phrase and its class. Where the class is another one, the label is the class, and the
phrase is the shape's `description`. Files are next to their pictures, or in a folder of their own.
Sources: labelme 6.3.1's _label_file.py and _shape.py (a rectangle has two corners), and
label_file.py of labelme 3 and 4; X-AnyLabeling 4.0.2's views/labeling/label_file.py and shape.py (a
rectangle has four corners, two are read; a shape has its `score`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.files import portable
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.records import (
    JsonObject,
    Update,
    dump_text,
    is_score,
    name_within,
    stated_size,
)
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import EXACT, Phrase, Sample
from dataflow_grounding.formats.found_pictures import PictureFinder
from dataflow_grounding.formats.imported import (
    Mark,
    ReturningFormat,
    Source,
    column,
    with_item_number,
)
from dataflow_grounding.formats.reading import (
    KeyedExpression,
    check_expression,
    entry_errors,
    files_under,
    read_whole,
    unite,
)

_VERSION = "6.3.1"  # of LabelMe, whose form new files have
_RECTANGLE = "rectangle"
_MASK = "mask"
# X-AnyLabeling's rotated box and its quadrangle; LabelMe's rotated box.
_FOUR_CORNERS = ("rotation", "quadrilateral", "oriented_rectangle")
_OUTLINED = ("polygon", *_FOUR_CORNERS)
# What only X-AnyLabeling has with four corners: LabelMe fails at a rectangle of more than two.
_OF_X = (_RECTANGLE, "rotation", "quadrilateral")
_LABELS = "labels"  # folder of the files whose pictures aren't copied
# The key that says where a shape's phrase is if it isn't its label. Both tools keep keys that they
# don't know.
_PHRASE_IN = "phrase_in"
_DESCRIPTION = "description"
# Keys that are read, or that say nothing of a picture.
_READ_OF_SHAPE = ("label", "points", "shape_type", "score", _MASK, "direction", _PHRASE_IN)
_READ_OF_FILE = ("version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth")
_NOT_STATED = (None, 0, -1)  # sides, as tools write them that don't know them


class LabelMe(ReturningFormat):
    """A JSON file for each picture; the items of a Source (see imported.py) are its `shapes`."""

    shows_upright = True

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write a file for each picture; its later records add their shapes to it."""
        files_with_image_data = 0  # imported files that had the picture itself in them
        for sample in samples:
            source = self.source_of(sample)  # the imported file that the record came from, if any
            self._write_file(source, out)
            if source.own.get("has_image_data"):
                files_with_image_data += 1
        if files_with_image_data:
            self.remarks.append(
                "imageData is null in the files, as the pictures have files of their own; files"
                f" that came with it: {files_with_image_data:,}"
            )

    def _write_file(self, source: Source, out: ExportFolder) -> None:
        place, image_path = _place_of(source)
        path = out.place(place)
        earlier_shapes: list[Any] = []
        if os.path.lexists(path):
            earlier = read_whole(path)
            if earlier["imagePath"] != image_path:  # another picture's: of a.jpg and a.png
                raise InputError(
                    f"{source.sample.file_name} and another picture would share"
                    f" {os.path.basename(path)}: rename one"
                )
            earlier_shapes = earlier["shapes"]
            source.leave_out_items_of_no_box()  # such as points, which are in the file already
        # Keys that only the imported file has come back as they were.
        imported_file = _file_of(source.own)
        data = dict(imported_file or _new_file(source.sample))
        data["imagePath"] = image_path
        data["shapes"] = [*earlier_shapes, *self.items_of(source)]
        data["imageData"] = None
        with out.file(place) as file:
            file.write(dump_text(data, 2) + "\n")

    def item_back(self, item: Any, mark: Mark, source: Source) -> Any:
        if not isinstance(item, dict):  # somebody has damaged the record's column
            return item
        shape = {**item}
        was_upright = _kind_of(item) == _RECTANGLE
        if mark.box and mark.has_other_area(was_upright):
            shape |= _area_back(item, mark.box, mark.outline)
            if shape["shape_type"] != item.get("shape_type"):
                shape.pop("direction", None)  # how far X-AnyLabeling had turned the shape
            if shape.get(_MASK) is not None:  # the pixels of its old area
                shape[_MASK] = None
            if "score" in shape:
                shape["score"] = mark.score
        if mark.is_renamed:
            shape = _with_words(shape, mark.phrase)
        return shape

    def new_items(self, mark: Mark, source: Source) -> Iterator[JsonObject]:
        """Yield the shape of a new box; a phrase without boxes has no shape."""
        if mark.box is None:
            return
        # X-AnyLabeling's have four corners, and LabelMe's two.
        rectangles = [item for item in source.items if _kind_of(item) == _RECTANGLE]
        corners = 4 if any(_has_four_corners(item) for item in rectangles) else 2
        # The keys are in LabelMe's own order: label and points are set below.
        shape: dict[str, Any] = {"label": "", "points": [], "group_id": None, _DESCRIPTION: ""}
        shape |= _area_of(mark.box, mark.outline, corners)
        shape["flags"] = {}
        shape = _with_words(shape, mark.phrase)
        if mark.score is not None:
            shape["score"] = mark.score
        yield shape

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each file, sorted by name; `path` is a folder of files, or a file."""
        if kind_of(path) == "folder":
            names = files_under(path, (".json",), "the folder of LabelMe's files")
            if not names:
                raise InputError(f"{path} has no .json files: name the folder of LabelMe's files")
            folder = path
        else:
            folder, name = os.path.split(path)
            names = [name]
        finder = PictureFinder(image_root, folder or ".")
        for name in names:
            file = os.path.join(folder, name)
            with entry_errors(file, self.bad):  # at an error the file is left out
                yield self._record(read_whole(file), file, name, finder)

    def _record(self, data: JsonObject, file: str, name: str, finder: PictureFinder) -> Update:
        """Return the record of a file that is called `name` in the folder that is read."""
        file_alone = {**data, "shapes": [], "imageData": None}
        _check_can_be_kept(file_alone)
        sides = _stated_sides(data)
        shapes_read, keyed_expressions = self._read_shapes(data, stated_size(sides), file)
        self._count_kept(data, _READ_OF_FILE, "files")
        picture, is_by_name = _picture_of(str(data["imagePath"] or ""), name, finder)
        if is_by_name:
            self.passed_over["values of imagePath, of which only the last part is found"] += 1
        own = {  # what an export to LabelMe needs
            "file": file_alone,
            "place": name,
            "picture": picture,
            "is_by_name": is_by_name,
            "has_image_data": data.get("imageData") is not None,
        }
        kept = column(self.name, shapes_read, **own)
        record = {"image_path": picture, **sides, "caption": None, **kept}
        record["expressions"] = unite(keyed_expressions)
        if data["shapes"] and not keyed_expressions:  # points, say: something is there
            record["background"] = False
        return record

    def _read_shapes(
        self, data: JsonObject, size: Size | None, file: str
    ) -> tuple[list[Any], list[KeyedExpression]]:
        """Return the shapes, and an expression for each that is an area."""
        shapes_read: list[Any] = []
        keyed_expressions: list[KeyedExpression] = []
        for number, shape in enumerate(data["shapes"], 1):
            where = f"{file}, shape {number}"
            with entry_errors(where):
                instance = self._instance_of(shape, size, where)
                _check_can_be_kept(shape)
                if instance is not None:
                    item = len(shapes_read)  # the number that the shape gets there
                    keyed_expressions.append(_keyed_expression(shape, instance, item))
                self._count_kept(shape, _READ_OF_SHAPE, "shapes")
                shapes_read.append(shape)
        return shapes_read, keyed_expressions

    def _count_kept(self, holder: JsonObject, keys_read: Sequence[str], of: str) -> None:
        """Count the keys that records don't say, and that go back to LabelMe."""
        for key, value in holder.items():
            is_phrase = key == _DESCRIPTION and holder.get(_PHRASE_IN) == _DESCRIPTION
            is_read = key in keys_read or is_phrase
            # A 0 says something: it is only equal to False.
            says_nothing = value is None or value is False or value in ("", [], {})
            if not is_read and not says_nothing:
                self.passed_over[f"keys {key!r:.40} of {of}, kept for LabelMe"] += 1

    def _instance_of(
        self, shape: JsonObject, size: Size | None, where: str
    ) -> dict[str, Any] | None:
        """Return a shape's box, outline and score; None for a point, a line or the like."""
        kind = _kind_of(shape)
        if kind not in (_RECTANGLE, _MASK, *_OUTLINED):
            self.passed_over[f"shapes {kind!r:.40}, kept for LabelMe"] += 1
            return None
        if kind == _MASK:
            self.passed_over["outlines of shapes 'mask', of which the box around is read"] += 1
        instance: dict[str, Any] = {"bbox": _box_around(shape)}
        if kind in _OUTLINED:
            try:
                instance[outlines.KEY] = outlines.checked(_numbers_of(shape), size)
            except BrokenRow as error:
                self.passed_over.add("outlines of no use", f"{where}: {error}")
        score = shape.get("score")
        if score is not None and is_score(score):
            instance["score"] = score
        return instance


def _box_around(shape: JsonObject) -> list[float]:
    points = shape["points"]
    if not points:
        raise BrokenRow("a shape without points")
    columns = [float(x) for x, _ in points]
    rows = [float(y) for _, y in points]
    right = max(columns)
    bottom = max(rows)
    if _kind_of(shape) == _MASK:
        # Its points are its first and its last pixel. The box ends after the last one.
        right += 1
        bottom += 1
    return [min(columns), min(rows), right, bottom]


def _stated_sides(data: JsonObject) -> JsonObject:
    sides = {}
    for side, key in (("width", "imageWidth"), ("height", "imageHeight")):
        if data.get(key) not in _NOT_STATED:
            sides[side] = data[key]
    return sides


def _kind_of(shape: Any) -> str:
    """Return a shape's type: LabelMe's first versions had none, and some tools write a capital."""
    kind = shape.get("shape_type") if isinstance(shape, Mapping) else ""
    return str(kind or "polygon").lower()


def _has_four_corners(shape: JsonObject) -> bool:
    points = shape.get("points")
    return isinstance(points, list) and len(points) == 4


def _check_can_be_kept(value: JsonObject) -> None:
    try:
        dump_text(value)
    except (ValueError, RecursionError):
        raise BrokenRow("a number in it is NaN or infinite, which JSON can't hold") from None


def _numbers_of(shape: JsonObject) -> list[float]:
    return [float(number) for point in shape["points"] for number in point]


def _keyed_expression(shape: JsonObject, instance: dict[str, Any], item: int) -> KeyedExpression:
    """Return an expression of one box; `item` is its shape's number among those that are kept."""
    label = shape["label"]
    if not isinstance(label, str) or not label.strip():
        raise BrokenRow("a box without a label")
    text = label
    if shape.get(_PHRASE_IN) == _DESCRIPTION:
        description = shape.get(_DESCRIPTION)
        if isinstance(description, str) and description.strip():
            text = description
    instances = [with_item_number(instance, item, text)]
    expression = {"text": text, "class": label, "instances": instances}
    check_expression(expression)
    return (label, text), expression


def _picture_of(stated: str, name: str, finder: PictureFinder) -> tuple[str, bool]:
    """Return the path of a file's picture, and whether it was found by its name alone.

    `name` is the file's in the folder that is read: some tools call it as the picture alone.
    """
    stated = stated.replace("\\", "/")  # as Windows writes paths
    folder, last = os.path.split(name)
    as_stated = os.path.join(folder, stated or os.path.splitext(last)[0])
    found = finder.shortest(as_stated)
    if found:
        return found, False
    if not stated:
        raise BrokenRow("it names no picture (imagePath), and none of its own name is next to it")
    # It may be a path of another machine: X-AnyLabeling, too, takes a picture of its name then.
    picture = os.path.basename(stated)
    # Folders of pictures may be called as those of files: a/ for labels/a, which is `folder`.
    folders = (folder, folder.partition("/")[2], "")
    found = finder.shortest(*(os.path.join(each, picture) for each in folders))
    return (found, True) if found else (as_stated, False)


def _file_of(own: JsonObject) -> JsonObject:
    """Return the source's file without its shapes; empty if there is none."""
    file = own.get("file")
    return file if isinstance(file, dict) else {}


def _new_file(sample: Sample) -> JsonObject:
    width, height = sample.size
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": [],
        "imagePath": "",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def _place_of(source: Source) -> tuple[str, Any]:
    """Return where the file goes, and the picture's path in it.

    An imported file that still leads to its picture keeps its place and path. Any other goes next
    to the copy, `images/a/x.json`, or into `labels/` where the picture isn't copied.
    """
    name = source.sample.name
    is_copied = name != source.sample.file_name  # a copy is images/a.jpg, and its name a.jpg
    folder = FOLDER if is_copied else _LABELS
    came_from: Any = source.own.get("place")
    stated = _file_of(source.own).get("imagePath")
    is_same_picture = os.path.normpath(str(source.own.get("picture"))) == name
    goes_back = isinstance(came_from, str) and is_same_picture
    if goes_back and (not is_copied or _leads_to_copy(source, came_from, stated)):
        return portable(f"{folder}/{came_from}"), stated
    return portable(f"{folder}/{name_within(name, None)}.json"), os.path.basename(name)


def _leads_to_copy(source: Source, place: str, stated: Any) -> bool:
    """Whether a file at its old place, b/a.json, leads to the picture's copy, b/a.jpg."""
    name = source.sample.name
    path = str(stated or name).replace("\\", "/")
    was_found_by_name = not stated or source.own.get("is_by_name")
    if was_found_by_name:
        path = os.path.basename(path)
    return os.path.normpath(os.path.join(os.path.dirname(place), path)) == name


def _with_words(shape: JsonObject, phrase: Phrase) -> dict[str, Any]:
    """Set the label to the class, and the description to the phrase where it has other words.

    A description that is the source's own stays: the label is the phrase then.
    """
    if shape.get(_PHRASE_IN) == _DESCRIPTION:  # the description is the old phrase
        shape = {**shape, _DESCRIPTION: ""}
        del shape[_PHRASE_IN]
    label = phrase.expression.stated_class or phrase.text
    has_own_description = bool(shape.get(_DESCRIPTION))
    if label == phrase.text or has_own_description:
        return {**shape, "label": phrase.text}
    return {**shape, "label": label, _DESCRIPTION: phrase.text, _PHRASE_IN: _DESCRIPTION}


def _area_back(item: JsonObject, box: Bbox, outline: Sequence[float] | None) -> JsonObject:
    """Return the points and type of a changed shape, in the form of the tool that wrote it."""
    kind = _kind_of(item)
    is_of_x_anylabeling = kind in _OF_X and _has_four_corners(item)
    corners = 4 if is_of_x_anylabeling else 2  # of a rectangle
    area = _area_of(box, outline, corners)
    # A shape such as a "rotation" keeps its type if all of it was only shifted, else it becomes a
    # polygon.
    if kind in _FOUR_CORNERS and _is_shifted(item, outline):
        area["shape_type"] = item["shape_type"]
    return area


def _is_shifted(item: JsonObject, outline: Sequence[float] | None) -> bool:
    """Whether an outline has the points of a shape, all of them moved by the same pixels."""
    if outline is None:
        return False
    try:
        numbers = _numbers_of(item)
        moves = [after - before for before, after in zip(numbers, outline, strict=True)]
    except (LookupError, TypeError, ValueError):  # somebody has written something else there
        return False
    across = moves[::2]
    down = moves[1::2]
    return max(across) - min(across) < EXACT and max(down) - min(down) < EXACT


def _area_of(box: Bbox, outline: Sequence[float] | None, corners: int) -> dict[str, Any]:
    """Return an outline as a polygon, or the box as a rectangle of 2 or 4 `corners`."""
    if outline is not None:
        points = [list(point) for point in outlines.points_of(outline)]
        return {"points": points, "shape_type": "polygon"}
    x1, y1, x2, y2 = box
    points = [[x1, y1], [x2, y2]]
    if corners == 4:
        points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    return {"points": points, "shape_type": _RECTANGLE}
