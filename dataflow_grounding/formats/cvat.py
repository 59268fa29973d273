"""CVAT for images 1.1: one XML file with the boxes of each picture, in pixels.

Their phrases are attributes. Boxes of one phrase share a `group_id`; a phrase without boxes, and
the picture's caption, are tags. Pictures are in the folder `images` next to the file, from which
their names start: CVAT goes by the number of an image whose name no picture of the task has.
Sources: docs.cvat.ai/docs/dataset_management/formats/format-cvat; cvat's
dataset_manager/bindings.py; datumaro's plugins/data_formats/cvat/base.py.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import quoteattr

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.data.classes import class_key, class_of
from dataflow_grounding.data.records import STATUSES
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.export_pictures import FOLDER
from dataflow_grounding.formats.format import Phrase, Sample
from dataflow_grounding.formats.imported import (
    COLUMN,
    NO_BOX,
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
    file_of,
    object_errors,
    read_xml,
    unite,
)
from dataflow_grounding.formats.rotated import rotated_box_of, turned
from dataflow_grounding.formats.xml_text import element_of, safe_for_xml, text_of

# The labels of what the export writes.
_BOX = "object"
_NO_BOX = "no box"  # of a phrase without boxes
_PICTURE = "picture"
_PHRASE_ATTRIBUTES = ("phrase", "start", "end", "expression_id")
_LABELS = {  # label → its type and attributes
    _BOX: ("rectangle", (*_PHRASE_ATTRIBUTES, "score")),
    _NO_BOX: ("tag", (*_PHRASE_ATTRIBUTES, "status")),
    _PICTURE: ("tag", ("caption", "image_id")),
}
_SCORE = r"0|[01]\.0*|0?\.\d+|1|\d(\.\d+)?e-\d+"  # from 0 to 1, as Python writes it
# Attributes as the export writes them, each as its name, its value and the tag that it is of:
# "phrase a dog box", "score 0.9 box", "status none tag".
_OURS = re.compile(
    rf"(phrase|expression_id) .*|(start|end) \d+ .*|score ({_SCORE}) box|(status|caption|image_id)"
    r" .* tag",
    re.DOTALL,
)
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_PART = ("left", "top", "width", "height")  # of the picture, that a <mask> fills
_AREAS = ("box", "polygon", "mask")  # elements that are boxes here
_OF_AREA = (*_CORNERS, *_PART, "points", "rle", "rotation")  # attributes that tell it
_BOXLESS_STATUSES = STATUSES[1:]  # all but `grounded`


@dataclass
class Cvat(ReturningFormat):
    """CVAT's own XML, which it takes as annotations of a task.

    The task needs the labels `object`, `no box` and `picture`. Other labels of boxes, polygons and
    masks are read as their phrases; other tags, shapes and attributes are counted.
    What was read comes out as it was, with all of these.
    """

    preamble: Mapping[str, Any] = field(default_factory=dict)

    repeats = True
    shows_upright = True
    rotates = True

    def safe(self, text: str) -> str:
        return safe_for_xml(text)

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        """Write line by line, so that any number of pictures fits into memory."""
        with out.file(self.data_file) as file:
            version = self.preamble.get("version", "<version>1.1</version>")
            file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n{version}\n')
            meta = self.preamble.get("meta")
            file.write(f"{meta}\n" if meta else _task_xml())
            self._labels = {class_key(label): label for label in _labels_in(meta or "<meta/>")}
            for number, sample in enumerate(samples):
                source = self.source_of(sample)
                facts = {"id": number, **source.own.get("image", {})}
                if source.own.get("picture") != sample.name:  # it is called otherwise now
                    facts["name"] = sample.name
                facts |= {"width": sample.size[0], "height": sample.size[1]}
                attributes = (f"{key}={quoteattr(self.safe(str(facts[key])))}" for key in facts)
                file.write(f"<image {' '.join(attributes)}>\n")
                elements = self.items_of(source) if source.own else _picture_xml(sample)
                file.writelines(f"{element}\n" for element in elements)
                file.write("</image>\n")
            file.write("</annotations>\n")

    def is_rest(self, item: str) -> bool:
        return element_of(item).get("label") != _PICTURE

    def item_back(self, item: str, mark: Mark, source: Source) -> str:
        """Return an element as it is now: a changed box without an outline is an upright <box>."""
        element = element_of(item)
        has_no_outline = element.tag == "box" and not _rotation_of(element)
        is_outlined = mark.outline is not None and has_no_outline
        if not (mark.is_moved or mark.is_renamed or is_outlined):
            return item
        if mark.box and (mark.is_moved or is_outlined):
            element.tag, area = _area_of(mark.box, mark.outline)
            for name in set(_OF_AREA).difference(area):
                element.attrib.pop(name, None)
            element.attrib.update(area)
        if mark.is_renamed:
            phrases = [each for each in element if each.get("name") == "phrase" and each.text]
            for attribute in phrases:
                attribute.text = mark.phrase.text
            if not phrases:  # its label says it
                element.set("label", str(mark.phrase.expression.get("class") or mark.phrase.text))
        return text_of(element)

    def new_items(self, mark: Mark, source: Source) -> Iterator[str]:
        """Yield the element of a new box or phrase.

        A box has the label of another box of its phrase, else its class where the task has that
        label, else ours. A phrase without boxes is written where the task has our label.
        """
        label = self._labels.get(class_key(class_of(mark.phrase.expression)))
        sibling = _first_box_of(mark.phrase, source)
        if sibling is None and label:
            sibling = Element("box", {"label": label})
        if mark.box and sibling is not None:
            yield _xml_like(sibling, mark)
        elif mark.box or class_key(_NO_BOX) in self._labels:
            yield _mark_of_phrase_xml(mark.phrase, mark.number, group_id=None)

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each <image>. A file of a video, or without images, is refused."""
        file = file_of(path, self.data_file)
        has_images = False
        for element in read_xml(file):
            if element.tag in ("version", "meta"):
                self.preamble = {**self.preamble, element.tag: text_of(element)}
            elif element.tag not in ("image", "track"):
                self.passed_over[f"elements <{element.tag:.40}>"] += 1
            if element.tag == "track":
                raise InputError(f"{file} has a <track>, of a video: export 'CVAT for images 1.1'")
            if element.tag == "image":
                with entry_errors(f"{file}, image {element.get('name')!r}", self.bad):
                    yield self._record(element, file, image_root)
                has_images = True
        if not has_images:
            raise InputError(f"{file} has no <image> in it: export 'CVAT for images 1.1'")

    def _record(self, image: Element, file: str, image_root: str) -> dict[str, Any]:
        # Boxes and tags with one phrase and one id or group are one expression; so are those with
        # one phrase and neither.
        picture = _picture_of(image.attrib["name"], image_root)
        record: dict[str, Any] = {"image_path": picture, "caption": None}
        record |= {side: int(image.attrib[side]) for side in ("width", "height")}
        items: list[str] = []
        record |= column(self.name, items, image=dict(image.attrib), picture=picture)
        keyed: list[KeyedExpression] = []
        other_shapes = 0
        for number, mark in enumerate(image, 1):
            where = f"{file}, image {image.get('name')!r}, {mark.tag} {number}"
            with object_errors(where, self.bad):
                label = mark.get("label", "")
                facts = _facts(mark, self.passed_over)
                is_no_box = mark.tag == "tag" and label == _NO_BOX
                area = self._read_area(mark, record, where)
                if mark.tag == "tag" and label == _PICTURE and facts:
                    record |= {key: facts[key] for key in ("caption", "image_id") if key in facts}
                elif area or is_no_box:
                    keyed.append(_keyed_expression(mark, area, facts, len(items)))
                elif mark.tag == "tag":
                    self.passed_over[f"tags {label!r}, kept for CVAT"] += 1
                else:
                    if mark.tag not in _AREAS:  # of these, a useless one is counted as bad
                        self.passed_over[f"shapes {mark.tag!r}, kept for CVAT"] += 1
                    other_shapes += 1
                items.append(text_of(mark))
        record[COLUMN]["items"] = items
        if other_shapes and not keyed:  # something is there
            record["background"] = False
        return self.bad.marked({**record, "expressions": unite(keyed)})

    def _read_area(self, mark: Element, record: Mapping[str, Any], where: str) -> dict[str, Any]:
        # The box of an element, perhaps with an outline. There is none for a useless shape, which
        # is a bad entry, and for elements that are no boxes.
        if mark.tag not in _AREAS:
            return {}
        if mark.tag == "box":
            box = box_of([float(mark.attrib[name]) for name in _CORNERS])
            return turned(box, _rotation_of(mark), self.passed_over, about_middle=True)
        size = (record["width"], record["height"])
        try:
            if mark.tag == "mask":
                left, top, width, height = (float(mark.attrib[name]) for name in _PART)
                self.passed_over["pixels of masks, of which the box around is read"] += 1
                return {"bbox": [left, top, left + width, top + height]}
            points = [point.split(",") for point in mark.attrib["points"].split(";")]
            numbers = [float(each) for x, y in points for each in (x, y)]
            outline = outlines.checked(numbers, size)
        except (BrokenRow, ValueError, ArithmeticError, KeyError) as error:
            outlines.lose_object(self.bad, where, error)
            return {}
        return {"bbox": [*outlines.bounds(outline)], outlines.KEY: outline}


def _rotation_of(box: Element) -> float:
    return float(box.get("rotation", 0))


def _picture_of(name: str, image_root: str) -> str:
    inside = f"{FOLDER}/{name}"
    is_inside = not os.path.exists(os.path.join(image_root, name))
    is_inside = is_inside and os.path.exists(os.path.join(image_root, inside))
    return inside if is_inside else name


def _task_xml() -> str:
    # Other readers of CVAT's XML look for this in front of the images.
    labels = ""
    for name, (kind, attributes) in _LABELS.items():
        fields = "".join(
            f"<attribute><name>{attribute}</name><mutable>False</mutable><input_type>text"
            "</input_type><default_value></default_value><values></values></attribute>"
            for attribute in attributes
        )
        labels += (
            f"<label><name>{name}</name><type>{kind}</type><attributes>{fields}</attributes>"
            "</label>\n"
        )
    return (
        "<meta><task><name>dataflow-grounding</name><mode>annotation</mode><labels>\n"
        f"{labels}</labels></task></meta>\n"
    )


def _labels_in(meta: str) -> Iterator[str]:
    for label in element_of(meta).iter("label"):
        name = label.findtext("name")
        if name:
            yield name


def _first_box_of(phrase: Phrase, source: Source) -> Element | None:
    # The element of the phrase's first box among those that the source had.
    boxes = [number for number, mark in source.marks.items() if mark.phrase is phrase and mark.box]
    return element_of(source.items[min(boxes)]) if boxes else None


def _xml_like(sibling: Element, mark: Mark) -> str:
    # A new box with the label, the group and the phrase of an element.
    assert mark.box is not None
    area = _area_of(mark.box, mark.outline)
    element = _box_element(sibling.get("label", ""), area, sibling.get("group_id"))
    element.extend(each for each in sibling if each.get("name") in _PHRASE_ATTRIBUTES)
    return text_of(element)


def _box_element(label: str, area: tuple[str, dict[str, str]], group_id: str | None) -> Element:
    tag, place = area
    facts = {"label": label, "source": "manual", "occluded": "0", **place}
    group = {"group_id": group_id} if group_id else {}
    return Element(tag, {**facts, "z_order": "0", **group})


def _area_of(box: Bbox, outline: Sequence[float] | None) -> tuple[str, dict[str, str]]:
    rotated = rotated_box_of(outline or ())
    rotation: dict[str, str] = {}
    if rotated is not None:
        box = rotated.before_turn(about_middle=True)
        rotation = {"rotation": str(rotated.degrees)}
    if outline is None or rotation:
        edges = {name: str(edge) for name, edge in zip(_CORNERS, box, strict=True)}
        return "box", {**edges, **rotation}
    points = zip(outline[::2], outline[1::2], strict=True)
    return "polygon", {"points": ";".join(f"{x},{y}" for x, y in points)}


def _picture_xml(sample: Sample) -> Iterator[str]:
    # Boxes of one phrase have the same `group_id`. A phrase without boxes has one mark, a tag.
    facts = {"caption": sample.caption, "image_id": sample.record.get("image_id")}
    if any(facts.values()):
        yield _with_attributes(_tag(_PICTURE), facts)
    for group_id, phrase in enumerate(sample.phrases, 1):
        for number in range(len(phrase.boxes)) or (NO_BOX,):
            yield _mark_of_phrase_xml(phrase, number, str(group_id))


def _mark_of_phrase_xml(phrase: Phrase, number: int, group_id: str | None) -> str:
    start, end = phrase.span or (None, None)
    facts = {
        "phrase": phrase.text,
        "start": start,
        "end": end,
        "expression_id": phrase.expression["expression_id"],
    }
    if number == NO_BOX:
        return _with_attributes(_tag(_NO_BOX), {**facts, "status": phrase.status})
    outline = phrase.expression["instances"][number].get(outlines.KEY)
    element = _box_element(_BOX, _area_of(phrase.boxes[number], outline), group_id)
    return _with_attributes(element, {**facts, "score": phrase.scores[number]})


def _tag(label: str) -> Element:
    return Element("tag", {"label": label, "source": "manual"})


def _with_attributes(element: Element, facts: Mapping[str, Any]) -> str:
    for name, value in facts.items():
        attribute = SubElement(element, "attribute", {"name": name})
        attribute.text = "" if value is None else safe_for_xml(str(value))
    return text_of(element)


def _keyed_expression(
    mark: Element,
    area: Mapping[str, Any],
    facts: Mapping[str, str],
    item: int,
) -> KeyedExpression:
    # `area` is empty for a tag, and `item` is the element's number among its picture's.
    label = mark.get("label", "")
    text = facts.get("phrase") or label
    own_id = facts.get("expression_id") or mark.get("group_id")
    instances = []
    if area:
        score = {"score": float(facts["score"])} if "score" in facts else {}
        instances = [with_item_number({**area, **score}, item, text)]
    if "phrase" not in facts and text in (_BOX, _NO_BOX):
        raise BrokenRow(f"what is labelled {text!r} has no phrase")
    status = facts.get("status")
    if status is not None and status not in _BOXLESS_STATUSES:
        raise BrokenRow(f"the status {status!r} is not one of {', '.join(_BOXLESS_STATUSES)}")
    span = [int(facts[key]) for key in ("start", "end") if key in facts]
    known = {key: facts[key] for key in ("expression_id", "status") if key in facts}
    expression = {"text": text, "char_span": span or None, **known, "instances": instances}
    check_expression(expression)
    return (own_id, text), expression if instances else with_item_number(expression, item, text)


def _facts(mark: Element, passed_over: Counter[str]) -> dict[str, str]:
    # By name, the texts of attributes that are as the export writes them. Others are left out, even
    # of the same names, and so are empty ones.
    texts: dict[str, str] = {}
    for attribute in mark.iter("attribute"):
        if attribute.text:
            texts[str(attribute.get("name"))] = attribute.text
    facts: dict[str, str] = {}
    for name, text in texts.items():
        if _OURS.fullmatch(f"{name} {text} {mark.tag}"):
            facts[name] = text
    passed_over.update(
        f"attributes {name!r}, kept for CVAT" for name in sorted(texts.keys() - facts)
    )
    return facts
