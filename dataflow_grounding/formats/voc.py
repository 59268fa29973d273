"""Pascal VOC: one XML file for each picture, with an `object` for each box.

The devkit counts pixels from 1, and both edges are in the box: its 1, 1, W, H is the whole picture.
LabelImg, and other tools that took the form over, write edges that count from 0. A file of the
devkit says so in `database` (The VOC2007 Database). CVAT has a rotated box as it was before its
turn about the middle, with degrees among the attributes. Sources: the devkit's VOCreadrecxml.m and
its annotation guidelines; labelImg's pascal_voc_io.py and labelFile.py; detectron2's pascal_voc.py;
ultralytics' VOC.yaml; datumaro's plugins/data_formats/voc/exporter.py.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding._util.paths import kind_of
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import JsonObject, Update, is_number
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import Phrase, Sample
from dataflow_grounding.formats.found_pictures import PictureFinder
from dataflow_grounding.formats.imported import COLUMN
from dataflow_grounding.formats.picture_files import PictureFiles
from dataflow_grounding.formats.reading import (
    KeyedExpression,
    entry_errors,
    files_under,
    read_xml,
    unite,
)
from dataflow_grounding.formats.rotated import degrees_in, turned
from dataflow_grounding.formats.xml_text import safe_for_xml, text_of

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NOT_KEPT = ("pose", "truncated", "difficult", "occluded")  # what a record has no place for
_DATABASE = "dataflow-grounding, in VOC's pixels from 1"  # its VOC tells the reader


@dataclass
class Voc(PictureFiles):
    """Pascal VOC, with a rotated box as CVAT writes it."""

    offset: int | None = None  # what the first pixel is called, 1 or 0; None: as the file does
    ending = ".xml"
    last_line = "</annotation>\n"

    def safe(self, text: str) -> str:
        return safe_for_xml(text)

    def lines(self, sample: Sample) -> Iterator[str]:
        yield "<annotation>"
        for item in (*_head(sample), *super().lines(sample)):
            yield f"\t{item}"

    def line_of(self, phrase: Phrase, number: int, size: Size) -> str:
        element = Element("object")
        facts = {"name": phrase.text, "pose": "Unspecified", "truncated": 0, "difficult": 0}
        _set_children(element, facts)
        x1, y1, x2, y2 = phrase.boxes[number]
        offset = 1 if self.offset is None else self.offset
        # Our box of the first two pixels of a row goes from 0 to 2. The devkit counts pixels from
        # 1, and writes the first and the last: 1 and 2. Other tools write 0 and 2, as we do.
        numbers = (x1 + offset, y1 + offset, x2, y2)
        texts = [str(int(number)) if number == int(number) else str(number) for number in numbers]
        corners = dict(zip(_CORNERS, texts, strict=True))
        _set_children(SubElement(element, "bndbox"), corners)
        return text_of(element)

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each XML file of a folder, or of its `Annotations`, sorted by name."""
        if kind_of(path) == "folder":
            annotations = os.path.join(path, self.data_file)
            folder = annotations if kind_of(annotations) == "folder" else path
            names = files_under(folder, (".xml",), "the folder of VOC's files")
            if not names:
                raise InputError(f"{path} has no .xml files: name the folder of VOC's files")
        else:
            folder = os.path.dirname(path) or "."
            names = [os.path.basename(path)]
        finder = PictureFinder(image_root, folder)
        for name in names:
            file = os.path.join(folder, name)
            with entry_errors(file, self.bad):  # at an error the file is left out
                yield self._record(file, name, finder)

    def _record(self, file: str, name: str, finder: PictureFinder) -> Update:
        """Return the record of a file that is called `name` in the folder of annotations."""
        objects, first_of_tag = self._read_elements(file)
        # The <source> tells whether pixels are counted from 1 or from 0. It may come after the
        # objects, so only now can their numbers be read.
        offset = self._offset_of(first_of_tag.get("source"))
        keyed_expressions = [self._keyed_expression(written, offset) for written in objects]
        stated = _file_name_in(first_of_tag.get("filename"))
        stem, _ = os.path.splitext(name)  # tools call the file as its picture
        names = [stem]
        if stated:
            names = [os.path.join(os.path.dirname(name), stated), stated, stem]
        record = {
            "image_path": finder.shortest(*names) or stated or f"{stem}.jpg",
            "caption": None,
            **_sides(first_of_tag.get("size")),
            "expressions": unite(keyed_expressions),
        }
        if "object" in first_of_tag and not objects:  # it shows something, without a box
            record["background"] = False
        return record

    def _read_elements(self, file: str) -> tuple[list["_ObjectAsWritten"], dict[str, Element]]:
        """Return the objects with a box, and the first element of each tag, such as the <size>."""
        objects: list[_ObjectAsWritten] = []
        first_of_tag: dict[str, Element] = {}
        tag_counts = Counter[str]()
        for element in read_xml(file, "annotation"):
            first_of_tag.setdefault(element.tag, element)
            tag_counts[element.tag] += 1
            where = f"{file}, {element.tag} {tag_counts[element.tag]}"
            with entry_errors(where):
                if element.tag != "object":
                    continue
                written = _object_as_written(element)
                if written is None:
                    self.passed_over["objects without a bndbox"] += 1
                    continue
                objects.append(written)
                for name in _NOT_KEPT:
                    if (element.findtext(name) or "0") not in ("0", "Unspecified"):
                        self.passed_over[f"values of {name!r}"] += 1
        return objects, first_of_tag

    def _offset_of(self, source: Element | None) -> int:
        """Return what a file with that element <source>, or without any, calls the first pixel."""
        if self.offset is not None:
            return self.offset
        database = source.findtext("database") if source is not None else None
        return 1 if "VOC" in (database or "") else 0

    def _keyed_expression(self, written: "_ObjectAsWritten", offset: int) -> KeyedExpression:
        """Return an object as an expression with one box, whose pixels are counted from 0."""
        x1, y1, x2, y2 = written.corners
        if written.degrees:  # before its turn a box may reach beyond the picture: 0 is no edge
            box = (x1 - offset, y1 - offset, x2, y2)
            read = turned(box, written.degrees, self.passed_over, about_middle=True)
        else:
            read = {"bbox": [_from_zero(x1, offset), _from_zero(y1, offset), x2, y2]}
        if outlines.KEY in read:  # an outline whose box is moved later is no outline of it
            read[COLUMN] = {"bbox": read["bbox"]}
        name = written.name
        return name, {"text": name, "class": name, "instances": [read]}


def _from_zero(edge: float, offset: int) -> float:
    """Return an edge counted from 0; where 1 is the first, a 0 comes of a tool that counts so."""
    return 0.0 if 0 <= edge < offset else edge - offset


class _ObjectAsWritten(NamedTuple):
    """An <object> of a file, with the numbers that are written there."""

    name: str
    corners: list[float]  # xmin, ymin, xmax, ymax
    degrees: float  # by which the box is turned about its middle


def _object_as_written(element: Element) -> _ObjectAsWritten | None:
    """Return an <object> with the numbers of its box; None where it has no box."""
    name = " ".join((element.findtext("name") or "").split())
    box = element.find("bndbox")
    if box is None:
        return None
    if not name:
        raise BrokenRow("an object without a name")
    texts = [box.findtext(corner) for corner in _CORNERS]
    corners = [_float_or_nan(text) for text in texts]
    if not all(map(is_number, corners)):  # none may be NaN or infinite
        raise BrokenRow(f"a corner of {name!r} is no number: {' '.join(map(str, texts))}")
    if corners[0] > corners[2] or corners[1] > corners[3]:
        raise BrokenRow(
            f"the box {corners} ends before it begins (xmin, ymin, xmax, ymax is expected)"
        )
    holder = {child.tag: _float_or_nan(child.text) for child in (*element, *box)}
    degrees = _degrees_of(element) or degrees_in(holder)
    return _ObjectAsWritten(name, corners, degrees)


def _degrees_of(element: Element) -> float:
    """Return the degrees among the <attributes> that CVAT writes, 0 for none.

    What is no number is another tool's, and no turn.
    """
    for attribute in element.iterfind("attributes/attribute"):
        if attribute.findtext("name") == "rotation":
            degrees = _float_or_nan(attribute.findtext("value"))
            return math.fmod(degrees, 360) if is_number(degrees) else 0.0
    return 0.0


def _float_or_nan(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return math.nan


def _sides(size: Element | None) -> dict[str, int]:
    """Return a picture's stated width and height; none where a tool leaves them out or writes 0."""
    if size is None:
        return {}
    sides = {side: int(float(size.findtext(side) or 0)) for side in ("width", "height")}
    return sides if all(sides.values()) else {}  # those of the picture itself count then


def _file_name_in(filename: Element | None) -> str:
    """Return the last part of the path in a <filename>; it may be of another machine, Windows'."""
    stated = "" if filename is None else filename.text or ""
    return os.path.basename(stated.strip().replace("\\", "/"))


def _head(sample: Sample) -> Iterator[str]:
    """Yield the elements that come before the objects, in the devkit's order."""
    width, height = sample.size
    yield _simple_item("folder", FOLDER)
    yield _simple_item("filename", safe_for_xml(os.path.basename(sample.file_name)))
    source = Element("source")
    _set_children(source, {"database": _DATABASE})
    yield text_of(source)
    size = Element("size")
    _set_children(size, {"width": width, "height": height, "depth": 3})
    yield text_of(size)
    yield _simple_item("segmented", "0")


def _simple_item(tag: str, text: str) -> str:
    element = Element(tag)
    element.text = text
    return text_of(element)


def _set_children(element: Element, text_of_tag: JsonObject) -> None:
    for tag, text in text_of_tag.items():
        SubElement(element, tag).text = str(text)
