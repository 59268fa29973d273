"""CVAT for images 1.1: one XML file with the boxes of each picture, in pixels.

Their phrases are attributes. Boxes of one phrase share a `group_id`; a phrase without boxes, and
the picture's caption, are tags. Pictures are in the folder `images` next to the file, from which
their names start: CVAT goes by the number of an image whose name no picture of the task has.
Sources: docs.cvat.ai/docs/dataset_management/formats/format-cvat; cvat's
dataset_manager/bindings.py; datumaro's plugins/data_formats/cvat/base.py.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, SubElement
from xml.sax.saxutils import escape, quoteattr

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import STATUSES, JsonObject, Update
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Phrase, Sample
from dataflow_grounding.formats.imported import (
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
    read_xml,
    unite,
)
from dataflow_grounding.formats.rotated import rotated_box_of, turned
from dataflow_grounding.formats.xml_text import element_of, safe_for_xml, text_of

# The labels of what the export writes.
_BOX = "object"
_BOXLESS_LABEL = "no box"  # of the tag of a phrase without boxes
_PICTURE = "picture"
_PHRASE_ATTRIBUTES = ("phrase", "start", "end", "expression_id")
_LABELS = {  # label → its type and attributes
    _BOX: ("rectangle", (*_PHRASE_ATTRIBUTES, "score")),
    _BOXLESS_LABEL: ("tag", (*_PHRASE_ATTRIBUTES, "status")),
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
    """CVAT's XML, as annotations of a task; items of a Source are the elements of an <image>."""

    preamble: JsonObject = field(default_factory=dict)
    class_list: Sequence[str] = ()  # in the order that their labels get

    shows_upright = True

    def safe(self, text: str) -> str:
        return safe_for_xml(text)

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        meta = self.preamble.get("meta")
        # `new_items`, which `items_of` calls below, chooses from labels of the imported task.
        task_labels = _labels_in(meta) if meta else ()
        self._label_of_key = {class_key(label): label for label in task_labels}
        self._classes = [*self.class_list]
        # The labels come first in the file, and are known after the last picture.
        images = [self._image_xml(number, sample) for number, sample in enumerate(samples)]
        with out.file(self.data_file) as file:
            version = self.preamble.get("version", "<version>1.1</version>")
            file.write(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n{version}\n')
            file.write(f"{meta}\n" if meta else _task_xml(self._classes))
            file.writelines(images)
            file.write("</annotations>\n")

    def _image_xml(self, number: int, sample: Sample) -> str:
        source = self.source_of(sample)
        if source.own:  # it came from CVAT
            elements = [*self.items_of(source)]
        else:
            self._classes += [phrase.expression.stated_class for phrase in sample.phrases]
            elements = [*_picture_xml(sample, has_own_labels="meta" in self.preamble)]
        lines = [f"<image {self._image_attributes(number, source)}>", *elements, "</image>\n"]
        return "\n".join(lines)

    def _image_attributes(self, number: int, source: Source) -> str:
        """Return those of the imported <image>, but for its size, and its name if that is new."""
        sample = source.sample
        facts = {"id": number, **source.own.get("image", {})}
        name_at_import = source.own.get("picture")
        if name_at_import != sample.name:
            facts["name"] = sample.name
        facts |= {"width": sample.size[0], "height": sample.size[1]}
        return " ".join(f"{key}={quoteattr(self.safe(str(facts[key])))}" for key in facts)

    def is_rest(self, item: str) -> bool:
        return element_of(item).get("label") != _PICTURE

    def item_back(self, item: str, mark: Mark, source: Source) -> str:
        """Return an element as it is now. A changed box without an outline is an upright <box>."""
        element = element_of(item)
        was_upright = element.tag == "box" and not _rotation_of(element)
        has_other_area = mark.has_other_area(was_upright)
        if not has_other_area and not mark.is_renamed:
            return item
        if mark.box and has_other_area:
            _set_area(element, mark.box, mark.outline)
        if mark.is_renamed:
            _set_phrase(element, mark.phrase)
        return text_of(element)

    def new_items(self, mark: Mark, source: Source) -> Iterator[str]:
        """Yield an element, labelled as another box of the phrase, by its class, or as ours."""
        if mark.box is None:
            if class_key(_BOXLESS_LABEL) in self._label_of_key:
                yield _mark_of_phrase_xml(mark.phrase, NO_BOX, group_id=None)
            return
        class_name = mark.phrase.expression.stated_class or mark.phrase.expression.text
        class_label = self._label_of_key.get(class_key(class_name))
        box_of_phrase = _first_box_of(mark.phrase, source)
        if box_of_phrase is not None:
            yield _xml_like(box_of_phrase, mark)
        elif class_label:
            yield _xml_like(Element("box", {"label": class_label}), mark)
        else:
            yield _mark_of_phrase_xml(mark.phrase, mark.number, group_id=None, label=_BOX)

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each <image>; a file of a video, or without images, is refused."""
        file = file_of(path, self.data_file)
        has_images = False
        for element in read_xml(file):
            if element.tag == "track":
                raise InputError(f"{file} has a <track>, of a video: export 'CVAT for images 1.1'")
            if element.tag == "image":
                with entry_errors(f"{file}, image {element.get('name')!r}", self.bad):
                    yield self._record(element, file)
                has_images = True
            elif element.tag in ("version", "meta"):
                self.preamble = {**self.preamble, element.tag: text_of(element)}
            else:
                self.passed_over[f"elements <{element.tag:.40}>"] += 1
        if not has_images:
            raise InputError(f"{file} has no <image> in it: export 'CVAT for images 1.1'")

    def _record(self, image: Element, file: str) -> Update:
        picture = image.attrib["name"]
        size = (int(image.attrib["width"]), int(image.attrib["height"]))
        items: list[str] = []  # what is in the <image>, as texts
        keyed_expressions: list[KeyedExpression] = []
        facts_of_picture: dict[str, str] = {}  # `caption`, `image_id`
        for number, element in enumerate(image, 1):
            with entry_errors(f"{file}, image {picture!r}, {element.tag} {number}"):
                facts = _facts(element, self.passed_over)
                is_about_picture = element.tag == "tag" and element.get("label") == _PICTURE
                if is_about_picture and facts:  # without facts of ours it is the user's own tag
                    for key in ("caption", "image_id"):
                        if key in facts:
                            facts_of_picture[key] = facts[key]
                else:
                    area = self._read_area(element, size)
                    if area or _is_phrase_without_box(element):
                        keyed = _keyed_expression(element, area, facts, item=len(items))
                        keyed_expressions.append(keyed)
                    else:
                        self._count_kept(element)
                items.append(text_of(element))
        record: Update = {
            "image_path": picture,
            "caption": None,
            "width": size[0],
            "height": size[1],
            **column(self.name, items, image=dict(image.attrib), picture=picture),
            **facts_of_picture,
        }
        if not keyed_expressions and any(element.tag != "tag" for element in image):
            record["background"] = False  # it shows something, though no box is read
        record["expressions"] = unite(keyed_expressions)
        return record

    def _count_kept(self, element: Element) -> None:
        what = f"shapes {element.tag!r}"
        if element.tag == "tag":
            what = f"tags {element.get('label', '')!r}"
        self.passed_over[f"{what}, kept for CVAT"] += 1

    def _read_area(self, element: Element, size: Size) -> dict[str, Any]:
        """Return `bbox`, perhaps an outline; {} for what is no area."""
        if element.tag not in _AREAS:
            return {}
        if element.tag == "box":
            box = box_of([float(element.attrib[name]) for name in _CORNERS])
            return turned(box, _rotation_of(element), self.passed_over, about_middle=True)
        if element.tag == "mask":
            left, top, width, height = (float(element.attrib[name]) for name in _PART)
            self.passed_over["pixels of masks, of which the box around is read"] += 1
            return {"bbox": [left, top, left + width, top + height]}
        outline = outlines.checked(_points_of(element), size)
        return {"bbox": [*outlines.bounds(outline)], outlines.KEY: outline}


def _is_phrase_without_box(element: Element) -> bool:
    return element.tag == "tag" and element.get("label") == _BOXLESS_LABEL


def _points_of(polygon: Element) -> list[float]:
    numbers: list[float] = []
    for point in polygon.attrib["points"].split(";"):  # "1.5,2;30,2;30,40"
        x, y = point.split(",")
        numbers += [float(x), float(y)]
    return numbers


def _rotation_of(box: Element) -> float:
    return float(box.get("rotation", 0))


def _task_xml(classes: Sequence[str]) -> str:
    """Return the labels, which other readers of CVAT's XML look for in front of the images."""
    of_classes = {safe_for_xml(name): _LABELS[_BOX] for name in classes if name.strip()}
    labels = ""
    for name, (kind, attributes) in {**_LABELS, **of_classes}.items():
        fields = "".join(
            f"<attribute><name>{attribute}</name><mutable>False</mutable><input_type>text"
            "</input_type><default_value></default_value><values></values></attribute>"
            for attribute in attributes
        )
        labels += (
            f"<label><name>{escape(name)}</name><type>{kind}</type><attributes>{fields}</attributes>"
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
    """Return the element of the phrase's first box in the imported file, if it has one."""
    items = [item for item, mark in source.marks.items() if mark.phrase is phrase and mark.box]
    return element_of(source.items[min(items)]) if items else None


def _set_area(element: Element, box: Bbox, outline: Sequence[float] | None) -> None:
    """Make an element a <box> or <polygon>, without the attributes of the shape that it was."""
    element.tag, area = _area_of(box, outline)
    for name in set(_OF_AREA).difference(area):
        element.attrib.pop(name, None)
    element.attrib.update(area)


def _set_phrase(element: Element, phrase: Phrase) -> None:
    """Write a phrase in the attribute `phrase`, or without that in the label, as its class."""
    attributes = [each for each in element if each.get("name") == "phrase" and each.text]
    for attribute in attributes:
        attribute.text = phrase.text
    if not attributes:
        element.set("label", phrase.expression.class_name or phrase.text)


def _xml_like(other: Element, mark: Mark) -> str:
    """Return a new box with the label, the group and the phrase of another element."""
    assert mark.box is not None
    area = _area_of(mark.box, mark.outline)
    element = _box_element(other.get("label", ""), area, other.get("group_id"))
    element.extend(each for each in other if each.get("name") in _PHRASE_ATTRIBUTES)
    return text_of(element)


def _box_element(label: str, area: tuple[str, dict[str, str]], group_id: str | None) -> Element:
    """Return an element whose attributes are in CVAT's own order."""
    tag, place = area
    facts = {"label": label, "source": "manual", "occluded": "0", **place}
    group = {"group_id": group_id} if group_id else {}
    return Element(tag, {**facts, "z_order": "0", **group})


def _area_of(box: Bbox, outline: Sequence[float] | None) -> tuple[str, dict[str, str]]:
    """Return the tag and the area's attributes of a <box>, turned or not, or of a <polygon>."""
    if outline is None:
        return "box", _edges_of(box)
    rotated = rotated_box_of(outline)
    if rotated is not None:
        edges = _edges_of(rotated.before_turn(about_middle=True))
        return "box", {**edges, "rotation": str(rotated.degrees)}
    points = ";".join(f"{x},{y}" for x, y in outlines.points_of(outline))
    return "polygon", {"points": points}


def _edges_of(box: Bbox) -> dict[str, str]:
    return {name: str(edge) for name, edge in zip(_CORNERS, box, strict=True)}


def _picture_xml(sample: Sample, has_own_labels: bool) -> Iterator[str]:
    """Yield the elements of a picture that came from no file of CVAT's."""
    facts = {"caption": sample.caption, "image_id": sample.record.get("image_id")}
    if any(facts.values()):
        yield _with_attributes(_tag(_PICTURE), facts)
    for group_id, phrase in enumerate(sample.phrases, 1):
        # A task lists its labels: without a class, and in a task of others, it is `object`.
        label = "" if has_own_labels else safe_for_xml(phrase.expression.stated_class)
        numbers = range(len(phrase.boxes)) or (NO_BOX,)
        for number in numbers:
            yield _mark_of_phrase_xml(phrase, number, str(group_id), label or _BOX)


def _mark_of_phrase_xml(
    phrase: Phrase, number: int, group_id: str | None, label: str = _BOX
) -> str:
    """Return a box with that label, or with NO_BOX the tag of a phrase without boxes."""
    start, end = phrase.span or (None, None)
    facts = {
        "phrase": phrase.text,
        "start": start,
        "end": end,
        "expression_id": phrase.expression.expression_id,
    }
    if number == NO_BOX:
        return _with_attributes(_tag(_BOXLESS_LABEL), {**facts, "status": phrase.status})
    area = _area_of(phrase.boxes[number], phrase.outline(number))
    element = _box_element(label, area, group_id)
    return _with_attributes(element, {**facts, "score": phrase.scores[number]})


def _tag(label: str) -> Element:
    return Element("tag", {"label": label, "source": "manual"})


def _with_attributes(element: Element, facts: JsonObject) -> str:
    for name, value in facts.items():
        attribute = SubElement(element, "attribute", {"name": name})
        attribute.text = "" if value is None else safe_for_xml(str(value))
    return text_of(element)


def _keyed_expression(
    element: Element, area: JsonObject, facts: Mapping[str, str], item: int
) -> KeyedExpression:
    """Return an element's expression: `area` is {} for a tag, `item` its number in the picture."""
    label = element.get("label", "")
    is_ours = label in (_BOX, _BOXLESS_LABEL)
    if is_ours and "phrase" not in facts:
        raise BrokenRow(f"what is labelled {label!r} has no phrase")
    status = facts.get("status")
    if status is not None and status not in _BOXLESS_STATUSES:
        raise BrokenRow(f"the status {status!r} is not one of {', '.join(_BOXLESS_STATUSES)}")
    text = facts.get("phrase") or label  # our export writes a phrase, other tools only a label
    instances = []
    if area:
        score = {"score": float(facts["score"])} if "score" in facts else {}
        instances = [with_item_number({**area, **score}, item, text)]
    span = [int(facts[key]) for key in ("start", "end") if key in facts]
    char_span = span or None  # None: the phrase has no place in the caption
    stated = {key: facts[key] for key in ("expression_id", "status") if key in facts}
    expression = {"text": text, "char_span": char_span, **stated, "instances": instances}
    if not is_ours:  # else the label says nothing
        expression["class"] = label
    check_expression(expression)
    if not instances:  # it has no box that could remember the element: the phrase does
        expression = with_item_number(expression, item, text)
    own_id = facts.get("expression_id") or element.get("group_id")
    return (own_id, text), expression


def _facts(element: Element, passed_over: Counter[str]) -> dict[str, str]:
    """Return attributes that are as the export writes them, {"score": "0.9"}; count the others."""
    texts: dict[str, str] = {}
    for attribute in element.iter("attribute"):
        if attribute.text:
            texts[str(attribute.get("name"))] = attribute.text
    facts: dict[str, str] = {}
    for name in sorted(texts):
        if _OURS.fullmatch(f"{name} {texts[name]} {element.tag}"):
            facts[name] = texts[name]
        else:
            passed_over[f"attributes {name!r}, kept for CVAT"] += 1
    return facts
