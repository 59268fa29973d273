"""Label Studio: tasks with predictions out, with annotations in.

A task has `data` (the picture's address, the caption) and lists of annotations and predictions. The
`result` of each is a list of parts: `{"id": "p0b0", "type": "rectanglelabels", "value": {…}}` is a
box, and a part `textarea` with the same id is its text. The parts of one id are a region. A part
`relation` has the ids of two regions, such as a box and the phrase's place in the caption.

An import keeps the parts as items. When they go back, a `Mark` says which box or phrase an item is
now (see imported.py).

`labels.xml` is the labelling configuration. A box is a region, in percents of the sides. Its label
is the phrase's class, or `object` where it states none. It has its phrase as a text, unless the
label says it, and a relation to the phrase's place in the caption. Offsets are code points. Early
versions counted UTF-16 units, and offsets may be off by a few (label-studio issues 539, 1347,
4988): the region's text shows which characters are meant.

A rotated box is turned about its top left corner, in pixels
(label_studio_sdk/converter/utils.py): percents of two different sides would skew it.

Sources: labelstud.io/guide/{task_format,predictions}; label-studio's web/libs/editor/src:
utils/selection-tools.js, mixins/AreaMixin.js (an id ends at `#`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import quoteattr

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.data.bad_entries import SKIPPED
from dataflow_grounding.data.classes import class_key, stated_class_of
from dataflow_grounding.data.records import has_id
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Phrase, Sample, is_at_span
from dataflow_grounding.formats.imported import (
    Mark,
    ReturningFormat,
    Source,
    column,
    with_item_number,
)
from dataflow_grounding.formats.reading import (
    OFF_SPANS,
    entry_errors,
    read_lines,
)
from dataflow_grounding.formats.rotated import rotated_box_of, turned
from dataflow_grounding.formats.xml_text import safe_for_xml

# labels and names of controls, as in label_studio.xml
_BOX = "object"  # label of a box whose phrase states no class
_CONTROLS = {"rectangle": "box", "polygon": "polygon"}
_PHRASE = "phrase"  # label of the place in the caption of a phrase with boxes
_NOTHING = "nothing there"  # label of the place of a phrase without boxes
_ABSENT = "absent"  # control with the phrases that have neither boxes nor a place
# Beginnings of types of regions that are only given back as they came, such as ellipselabels.
_OTHER_SHAPES = ("brush", "ellipse", "bitmask", "keypoint", "vector", "video")
_POLYGON = "polygon"  # begins types of regions that are outlines
# keys of a region's value that say where it is, of any type
_AREA_KEYS = ("x", "y", "width", "height", "rotation", "points", "closed", "format", "rle")
# What the configuration has where there are outlines: the control, and the line before it.
_POLYGON_CONTROL = """
  <PolygonLabels name="polygon" toName="image"><Label value="object"/></PolygonLabels>"""
_END_OF_BOX_CONTROL = "</RectangleLabels>"
# What it has without classes, and what with them: a label for each, and boxes without a text.
_BOX_LABEL = '<Label value="object"/>'
_NEEDS_TEXT = ' required="true"'
_OUR_ID = re.compile(rf"p\d+b\d+|{_ABSENT}")  # of regions that the export wrote: p0b1, absent
_AS_READ = "as read"  # key of a region, as it is in the file
_UNREAD = "unread"  # in place of a useless region's type
_NO_PLACE = ""  # instead of the id of a place in the caption
_NO_CLASS = ""  # instead of the name of a class
_DECIMALS = 6  # of a pixel


@dataclass
class LabelStudio(ReturningFormat):
    """Label Studio's JSON; a task's last annotation is read, or without any its last prediction."""

    image: str = "image"  # what these are called in a task's data
    caption: str = "caption"
    class_list: Sequence[str] = ()  # in the order that their labels get

    repeats = True
    shows_upright = True
    rotates = True

    def __post_init__(self) -> None:
        # ids of regions of the task that is written now
        self._taken_ids: set[Any] = set()
        # class_key → the label: of the list, then of others as they come
        self._label_of_class: dict[str, str] = {}
        for name in self.class_list:
            if name.strip():
                self._label_of_class.setdefault(class_key(name), safe_for_xml(name))

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        has_polygons = False
        used_labels: set[str] = set()
        with out.lists(self.data_file, "") as (put,):  # with "" the file is one list
            for sample in samples:
                has_polygons = has_polygons or _has_polygon(sample)
                for phrase in sample.phrases:
                    used_labels.add(self._label_of(phrase))
                source = self.source_of(sample)
                if source.own:  # it came from Label Studio
                    put(self._task_back(source))
                else:
                    put({"data": self._data(sample), "predictions": [self._prediction(sample)]})
        with out.file("labels.xml") as file:
            file.write(self._configuration(used_labels, has_polygons))

    def _label_of(self, phrase: Phrase) -> str:
        """Return the label of the phrase's class; keep a new class for the configuration."""
        name = safe_for_xml(stated_class_of(phrase.expression))
        return self._label_of_class.setdefault(class_key(name), name) if name else _BOX

    def _configuration(self, used_labels: Set[str], has_polygons: bool) -> str:
        config = files(__package__).joinpath("label_studio.xml").read_text("utf-8")
        if has_polygons:
            config = config.replace(_END_OF_BOX_CONTROL, _END_OF_BOX_CONTROL + _POLYGON_CONTROL, 1)
        states_classes = bool(used_labels - {_BOX})
        if not states_classes:  # the file's own label, `object`, is enough
            return config
        labels = list(self._label_of_class.values())
        if _BOX in used_labels:
            labels.append(_BOX)
        once = dict.fromkeys(labels)  # a class may be called `object`, too
        elements = "".join(f"<Label value={quoteattr(label)}/>" for label in once)
        # Where a label says the phrase, a box has no text: the file mustn't require one.
        return config.replace(_BOX_LABEL, elements).replace(_NEEDS_TEXT, "")

    def _task_back(self, source: Source) -> dict[str, Any]:
        """Return the task as it was, with the annotation that was read as it is now."""
        list_name, number = source.own["place"]  # ["annotations", 2], see _imported_column
        task = {**source.own["task"]}
        has_other_name = source.sample.file_name != _path_of(task["data"][self.image])
        if has_other_name:  # such as that of its copy in the export
            image = self._data(source.sample)[self.image]
            task["data"] = {**task["data"], self.image: image}
        # `items_of` calls `new_items`, which gives other ids.
        self._taken_ids = {item.get("id") for item in source.items}
        result = list(self.items_of(source))
        annotations = [*task[list_name]]
        annotations[number] = {**annotations[number], "result": result}
        task[list_name] = annotations
        return task

    def source_of(self, sample: Sample) -> Source:
        """Let all parts of a region follow its item, the only one that the base class knows."""
        source = super().source_of(sample)
        items = source.items
        mark_of_region: dict[Any, Mark] = {}  # by the region's id
        for number in sorted(source.marks):  # of several items of a region, the last counts
            mark_of_region[items[number].get("id")] = source.marks[number]
        gone_items = [items[number] for number in source.gone]
        # A region of several phrases stays until it has lost them all.
        gone_regions = {item["id"] for item in gone_items if "id" in item} - mark_of_region.keys()
        gone_regions |= _places_of_gone_boxes(items, gone_regions)
        for number, item in enumerate(items):
            region = item.get("id")
            ends = {item.get("from_id"), item.get("to_id")}  # of a relation; None in other items
            if region in gone_regions or ends & gone_regions:
                source.gone.add(number)
            elif region in mark_of_region:
                source.marks[number] = mark_of_region[region]
        return source

    def item_back(self, item: dict[str, Any], mark: Mark, source: Source) -> dict[str, Any]:
        """Return a part of a region, such as a box or its text, with the box and words of now."""
        value = item.get("value")
        if not isinstance(value, dict):  # a relation
            return item
        was_upright = "points" not in value and not value.get("rotation")
        if mark.box and mark.has_other_area(was_upright):
            item = _with_area(item, mark, source)
        if mark.is_renamed:
            item = _with_words(item, mark, source)
        return item

    def new_items(self, mark: Mark, source: Source) -> Iterator[dict[str, Any]]:
        """Yield the regions of a new box or phrase, in the form of the task's first box or ours."""
        span_id = self._free_span_id()  # p0, p1 and so on, of which a box's id is made: p0b0
        first_box = next((item for item in source.items if _role(item) == "box"), None)
        if mark.box is not None and first_box is not None and not _is_written_as_ours(first_box):
            regions = _regions_like(first_box, f"{span_id}b0", mark, source)
        elif first_box is not None and _is_labelled_object(first_box):
            # The task may have no other label than `object`.
            regions = self._our_regions(span_id, mark, source, _BOX)
        else:
            regions = self._our_regions(span_id, mark, source, self._label_of(mark.phrase))
        for region in regions:
            self._taken_ids.add(region.get("id"))
            yield region

    def _free_span_id(self) -> str:
        """Return "p7", say, if neither it nor "p7b0" is taken."""
        number = 0
        while not self._taken_ids.isdisjoint((f"p{number}", f"p{number}b0")):
            number += 1
        return f"p{number}"

    def _our_regions(
        self, span_id: str, mark: Mark, source: Source, label: str
    ) -> Iterator[dict[str, Any]]:
        sample = source.sample
        box_numbers = [] if mark.box is None else [mark.number]
        phrase = mark.phrase.with_boxes(box_numbers)  # its other boxes have regions of their own
        caption_of_task = source.own["task"]["data"].get(self.caption) or ""
        if sample.caption != caption_of_task:
            # The task keeps its caption, and the span counts characters of the sample's.
            phrase = replace(phrase, span=None)
        yield from _span_regions(span_id, phrase, sample.caption)
        yield from _box_regions(span_id, phrase, sample, label)
        if not phrase.boxes and not phrase.span:
            yield _absent_region(f"{span_id}b0", [phrase.text])

    def _prediction(self, sample: Sample) -> dict[str, Any]:
        result: list[dict[str, Any]] = []
        absent = []  # texts of phrases that have neither boxes nor a place in the caption
        scores = []
        for number, phrase in enumerate(sample.phrases):
            result += _span_regions(f"p{number}", phrase, sample.caption)
            result += _box_regions(f"p{number}", phrase, sample, self._label_of(phrase))
            scores += [score for score in phrase.scores if score is not None]
            if not phrase.boxes and not phrase.span:
                absent.append(phrase.text)
        if absent:
            result.append(_absent_region(_ABSENT, absent))  # one region for all of them
        prediction: dict[str, Any] = {
            "model_version": str(sample.record.get("model") or "dataflow-grounding")
        }
        if scores:
            prediction["score"] = min(scores)  # of the least sure box
        prediction["result"] = result
        return prediction

    def _data(self, sample: Sample) -> dict[str, Any]:
        name = sample.file_name
        return {
            self.image: name if "://" in name else f"/data/local-files/?d={quote(name)}",
            self.caption: sample.caption,
            "image_id": sample.record.get("image_id"),
        }

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each task with an annotation or a prediction; others are counted."""
        for where, task in read_lines(path, self.data_file, self.bad):
            with entry_errors(where, self.bad):
                record = self._record_of_task(task, where)
                if record is not None:
                    yield record

    def _record_of_task(self, task: Mapping[str, Any], where: str) -> dict[str, Any] | None:
        """Return a task's record; None, and a count, without an annotation or a prediction."""
        if "data" not in task:
            raise BrokenRow("no 'data' in it: export from Label Studio as JSON, not as JSON-MIN")
        annotations = _written_out(task.get("annotations"))
        latest = _latest(annotations)
        kind = "annotations"
        if latest is None:  # a person's annotation wins over a model's prediction
            kind = "predictions"
            latest = _latest(_written_out(task.get("predictions")))
        self._count_passed_over(annotations, latest)
        if latest is None:
            return None
        parts = [self._with_outline(part, where) for part in latest["result"]]
        record = self._record(task["data"], {**latest, "result": parts})
        parts_as_in_file = [part.get(_AS_READ, part) for part in parts]
        own = _imported_column(self.name, task, kind, latest, parts_as_in_file)
        return {**record, **own}

    def _with_outline(self, part: Any, where: str) -> Any:
        """Add a polygon's box and outline in pixels as `shape`; leave other parts as they are.

        A brush or the like, which we have no place for, becomes a part of the type _UNREAD.
        """
        kind = str(part.get("type")) if isinstance(part, dict) else ""
        if kind.startswith(_OTHER_SHAPES):
            self.passed_over[f"regions {kind!r:.40}, kept for Label Studio"] += 1
            return {"id": part.get("id"), "type": _UNREAD, _AS_READ: part}
        if not kind.startswith(_POLYGON):
            return part
        with entry_errors(f"{where}, region {part.get('id')}"):
            size = (part["original_width"], part["original_height"])
            outline = outlines.checked(_outline_in(part["value"], size), size)
        shape = {"bbox": [*outlines.bounds(outline)], outlines.KEY: outline}
        return {**part, "shape": shape, _AS_READ: part}

    def _count_passed_over(self, annotations: list[Any], latest: dict[str, Any] | None) -> None:
        cancelled_count = sum(bool(each.get("was_cancelled")) for each in annotations)
        valid_count = len(annotations) - cancelled_count
        count_before_last = max(0, valid_count - 1)  # a task may have none
        # Counts of 0 are added, too: reasons are reported in the order of their first mention here.
        self.passed_over.update(
            {
                "cancelled annotations": cancelled_count,
                "annotations before a task's last one": count_before_last,
                "tasks without an annotation": int(latest is None),
            }
        )

    def _record(self, data: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, Any]:
        caption = data.get(self.caption) or ""
        record: dict[str, Any] = {"image_path": _path_of(data[self.image]), "caption": caption}
        result = annotation["result"]
        if any(part.get("item_index") for part in result):
            raise BrokenRow("a task of several pages: only tasks of one picture can be read")
        record["expressions"] = _expressions(result, caption, self.passed_over)
        unread_count = sum(part["type"] == _UNREAD for part in result)
        if unread_count:  # something is there, which a detector would learn as background
            record[SKIPPED] = unread_count
            if not record["expressions"]:
                record["background"] = False
        for part in result:
            if _role(part) == "box":  # each box states the picture's size, which is the same in all
                record["width"] = part["original_width"]
                record["height"] = part["original_height"]
        if has_id(data.get("image_id")):
            record["image_id"] = data["image_id"]
        annotator = _annotator_of(annotation)
        if annotator:
            record["reviewed_by"] = annotator
        return record


def _annotator_of(annotation: Mapping[str, Any]) -> str:
    """Return an id, or the email where the export writes out a user; "" for a prediction."""
    annotator = annotation.get("completed_by")
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("id")
    return "" if annotator is None else str(annotator)


def _is_relation(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "relation"


def _ends_of(relation: Mapping[str, Any]) -> tuple[Any, Any]:
    return relation["from_id"], relation["to_id"]


def _is_place(part: Mapping[str, Any]) -> bool:
    value = part.get("value")
    return isinstance(value, dict) and isinstance(value.get("start"), int)


def _imported_column(
    format: str,
    task: Mapping[str, Any],
    list_name: str,
    latest: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the column; `place` in it says where the annotation was: ["annotations", 2]."""
    number = next(index for index, each in enumerate(task[list_name]) if each is latest)
    annotations = [*task[list_name]]
    annotations[number] = {**latest, "result": []}
    place = [list_name, number]
    return column(format, parts, task={**task, list_name: annotations}, place=place)


def _places_of_gone_boxes(items: Sequence[dict[str, Any]], gone_ids: Set[Any]) -> set[Any]:
    """Return the ids of places in the caption whose relations are all to regions that are gone."""
    related_to_gone: set[Any] = set()
    related_to_others: set[Any] = set()
    for item in items:
        if item["type"] != "relation":
            continue
        ends = {item["from_id"], item["to_id"]}
        if ends & gone_ids:
            related_to_gone |= ends
        else:
            related_to_others |= ends
    places = {item["id"] for item in items if _role(item) == "span"}
    return places & (related_to_gone - related_to_others)


def _texts_of(own_id: Any, source: Source) -> list[dict[str, Any]]:
    texts = [item for item in source.items if item["type"] == "textarea"]
    return [item for item in texts if item.get("id") == own_id]


def _regions_like(
    first_box: Mapping[str, Any], own_id: str, mark: Mark, source: Source
) -> Iterator[dict[str, Any]]:
    """Yield a new box as the task's first one is: with a text if that has one, else a label."""
    assert mark.box is not None
    phrase = mark.phrase
    texts = _texts_of(first_box["id"], source)
    if texts:  # the text says the phrase, and the label is the same for all such boxes
        labels = first_box["value"].get(first_box["type"])
    else:
        labels = [stated_class_of(phrase.expression) or phrase.text]
    of_box = box_facts(own_id, source.sample.size)
    kind, area = _kind_and_area(mark.box, mark.outline, source.sample.size)
    # The first box may be a rectangle, and the new one a polygon, of another control.
    names = {**_names_of_control(first_box), **_control_of(kind, source)}
    yield {**of_box, **names, "value": {**area, names["type"]: labels}}
    if texts:
        text = {**area, "text": [phrase.text]}
        yield {**of_box, **_names_of_control(texts[0]), "value": text}


def _names_of_control(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part[key] for key in ("from_name", "to_name", "type") if key in part}


def _path_of(address: str) -> str:
    """Return PATH of `/data/local-files/?d=PATH`, a local file, or of `/data/PATH`, an upload."""
    parts = urlsplit(address)
    if parts.path.rstrip("/").endswith("/data/local-files"):
        paths = parse_qs(parts.query).get("d")
        if paths:
            return paths[0]
    return address.removeprefix("/data/")


def _absent_region(own_id: str, texts: list[str]) -> dict[str, Any]:
    region = {"id": own_id, "from_name": _ABSENT, "to_name": "image", "type": "textarea"}
    return {**region, "value": {"text": texts}}


def _span_regions(span_id: str, phrase: Phrase, caption: str) -> Iterator[dict[str, Any]]:
    """Yield the phrase's place in the caption, and its text unless its boxes have that."""
    if not phrase.span:
        return
    start, end = phrase.span
    words = caption[start:end]
    region = {"id": span_id, "to_name": "caption"}
    value = {"start": start, "end": end, "text": words}
    label = _PHRASE if phrase.boxes else _NOTHING
    yield {**region, "from_name": "span", "type": "labels", "value": {**value, "labels": [label]}}
    if not phrase.boxes and phrase.text != words:
        text = {**value, "text": [phrase.text]}
        yield {**region, "from_name": "words", "type": "textarea", "value": text}


def _box_regions(
    span_id: str, phrase: Phrase, sample: Sample, label: str
) -> Iterator[dict[str, Any]]:
    """Yield each box's part, its text, and its relation to the phrase's place in the caption."""
    # Where the label is the phrase, whoever changes it changes the phrase. At a place in the
    # caption, a box without a text would be read as the words there.
    label_is_phrase = label == phrase.text and label != _BOX
    needs_text = not label_is_phrase or phrase.span is not None
    for number, box in enumerate(phrase.boxes):
        outline = phrase.expression["instances"][number].get(outlines.KEY)
        kind, area = _kind_and_area(box, outline, sample.size)
        region = box_facts(f"{span_id}b{number}", sample.size)
        value = {**area, f"{kind}labels": [label]}
        part = {**region, "from_name": _CONTROLS[kind], "type": f"{kind}labels", "value": value}
        score = phrase.scores[number]
        if score is not None:
            part["score"] = score
        yield part
        if needs_text:
            text = {**area, "text": [phrase.text]}
            yield {**region, "from_name": "phrase", "type": "textarea", "value": text}
        if phrase.span:
            ends = {"from_id": region["id"], "to_id": span_id}
            yield {"type": "relation", **ends, "direction": "right", "labels": []}


def _has_polygon(sample: Sample) -> bool:
    for phrase in sample.phrases:
        for instance in phrase.expression["instances"]:
            outline = instance.get(outlines.KEY)
            # A rotated box has an outline, too, and is written as a rectangle.
            if outline is not None and rotated_box_of(outline) is None:
                return True
    return False


def _with_area(item: dict[str, Any], mark: Mark, source: Source) -> dict[str, Any]:
    assert mark.box is not None
    kind, area = _kind_and_area(mark.box, mark.outline, source.sample.size)
    other_keys = {key: each for key, each in item["value"].items() if key not in _AREA_KEYS}
    has_area = len(other_keys) < len(item["value"])
    if not has_area:  # such as a choice
        return item
    is_text = _role(item) != "box"  # a region's text repeats the area of its box
    if is_text:
        return {**item, "value": {**area, **other_keys}}
    # A rectangle may become a polygon, or the reverse: then another control makes the region. The
    # key of its labels is its type: {"rectanglelabels": ["cup"]} → {"polygonlabels": ["cup"]}.
    is_same_kind = item["type"].startswith(kind)
    control = {} if is_same_kind else _control_of(kind, source)
    region = {**item, **control}
    labels = other_keys.pop(item["type"], None)
    if labels is not None:
        other_keys[region["type"]] = labels  # after the value's other keys
    return {**region, "value": {**area, **other_keys}}


def _with_words(item: dict[str, Any], mark: Mark, source: Source) -> dict[str, Any]:
    is_text = item["type"] == "textarea"
    key = "text" if is_text else item["type"]
    words = item["value"].get(key)
    # A region's labels are its phrase only where it has no text.
    says_phrase = is_text or not _texts_of(item.get("id"), source)
    if not isinstance(words, list) or not says_phrase:
        return item
    new_words = [mark.phrase.text if word == mark.text else word for word in words]
    return {**item, "value": {**item["value"], key: new_words}}


def _control_of(kind: str, source: Source) -> dict[str, str]:
    """Return the name and type of the task's control of rectangles or polygons, else of ours."""
    for item in source.items:
        if str(item.get("type")).startswith(kind) and "from_name" in item:
            return {"from_name": item["from_name"], "type": item["type"]}
    return {"from_name": _CONTROLS[kind], "type": f"{kind}labels"}


def _kind_and_area(
    box: Bbox, outline: Sequence[float] | None, size: Size
) -> tuple[str, dict[str, Any]]:
    """Return the kind of region that a box is, and its area in percents of the sides."""
    if outline is None:
        return "rectangle", area_of(box, size)
    rotated = rotated_box_of(outline)
    if rotated is not None:
        # Label Studio turns a box about its top left corner.
        area = area_of(rotated.before_turn(about_middle=False), size)
        return "rectangle", {**area, "rotation": rotated.degrees}
    width, height = size
    points = [[x / width * 100, y / height * 100] for x, y in outlines.points_of(outline)]
    return _POLYGON, {"points": points, "closed": True}


def _outline_in(value: Mapping[str, Any], size: Size) -> list[float]:
    """Return [[25, 50], …] in percents as [160, 240, …] in pixels, for 640 x 480."""
    width, height = size
    outline = []
    for x, y in value["points"]:
        outline.append(round(x * width / 100, _DECIMALS))
        outline.append(round(y * height / 100, _DECIMALS))
    return outline


def area_of(box: Bbox, size: Size) -> dict[str, Any]:
    """Return a box as a region's value has it, in percents of the sides."""
    x1, y1, x2, y2 = box
    width, height = size
    return {
        "x": x1 / width * 100,
        "y": y1 / height * 100,
        "width": (x2 - x1) / width * 100,
        "height": (y2 - y1) / height * 100,
        "rotation": 0,
    }


def box_facts(own_id: str, size: Size) -> dict[str, Any]:
    """Return what each part of a box's region has; `size` is the picture's."""
    return {
        "id": own_id,
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
    }


def _written_out(annotations: Any) -> list[dict[str, Any]]:
    """Return the annotations; an export of tasks alone has numbers there (issue 9709)."""
    if not isinstance(annotations, list):
        return []
    return [each for each in annotations if isinstance(each, dict)]


def _latest(annotations: list[dict[str, Any]]) -> dict[str, Any] | None:
    valid = [each for each in annotations if not each.get("was_cancelled")]
    if not valid:
        return None
    # sorted() keeps the order of equal times, so that the last of them is the list's last.
    return sorted(valid, key=_time_of)[-1]


def _time_of(annotation: Mapping[str, Any]) -> str:
    """Return a text such as "2024-05-01T12:00:00.000000Z", which sorts as times do; "" is first."""
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


class _Mention(NamedTuple):
    """A phrase that a region says, at one place in the caption; a region may have several."""

    text: str
    span_id: str  # of the place in the caption; _NO_PLACE for none
    span: list[int] | None  # that place, [start, end)
    region: dict[str, Any]
    item: int  # the region's number in the result
    is_box: bool  # false where the region says that the phrase has no box
    class_name: str


def _expressions(
    result: list[dict[str, Any]], caption: str, passed_over: Counter[str]
) -> list[dict[str, Any]]:
    """Return the expressions of all regions; those of one text, class and place share one."""
    expressions: list[dict[str, Any]] = []
    # The expressions of a text, each after the id of its place: {"a cup": [("p0", {…})]}.
    placed_of_text: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for mention in _mentions(result, caption, passed_over):
        placed = placed_of_text.setdefault(mention.text, [])
        expression = _expression_to_join(mention, placed)
        if expression is None:
            expression = {"text": mention.text, "instances": []}
            expressions.append(expression)
            placed.append((mention.span_id, expression))
        _add_mention(expression, mention, passed_over)
    return expressions


def _add_mention(expression: dict[str, Any], mention: _Mention, passed_over: Counter[str]) -> None:
    if mention.class_name:
        expression["class"] = mention.class_name
    if not mention.is_box and not expression["instances"]:
        # A phrase without boxes remembers its region itself, as a box does below.
        expression.update(with_item_number(expression, mention.item, mention.text))
    if mention.span:
        expression["char_span"] = mention.span
    elif _OUR_ID.fullmatch(mention.region.get("id", "")):
        # In a region of our export without a place, the phrase is nowhere in its caption. `None`
        # says so: without the key, an import would look for a place. An earlier mention of the same
        # phrase may have set one, which stays.
        expression.setdefault("char_span", None)
    if mention.is_box:
        instance = _instance(mention.region, passed_over)
        instance = with_item_number(instance, mention.item, mention.text)
        expression["instances"].append(instance)


def _mentions(
    result: list[dict[str, Any]], caption: str, passed_over: Counter[str]
) -> Iterator[_Mention]:
    """Yield each phrase of a region, at each place in the caption that the region is related to."""
    texts = [part for part in result if part["type"] == "textarea"]
    texts_by_region = {part["id"]: part["value"]["text"] for part in texts}
    places = [part for part in result if _role(part) == "span"]
    spans = {part["id"]: _place_in_caption(part, caption, passed_over) for part in places}
    related = _related_spans(result, spans)
    for number, region in enumerate(result):
        region_id = region.get("id", "")
        role = _role(region)
        is_box = role == "box"
        class_name = _class_in(region) if is_box else _NO_CLASS
        span_ids = related.get(region_id, [_NO_PLACE])
        stated = texts_by_region.get(region_id)  # a text, a list of texts, or None
        for span_id, texts_there in _texts_by_span(span_ids, region_id, stated, spans, caption):
            span = spans.get(span_id)
            words_there = None if span is None else caption[slice(*span)]
            for text in _phrases(region, role, texts_there, words_there):
                yield _Mention(text, span_id, span, region, number, is_box, class_name)


def _expression_to_join(
    mention: _Mention, placed: Iterable[tuple[str, dict[str, Any]]]
) -> dict[str, Any] | None:
    """Return the expression of the mention's place and class; without a place, of any place."""
    for span_id, expression in placed:
        is_of_place = mention.span_id in (_NO_PLACE, span_id)
        stated_classes = {mention.class_name, expression.get("class", _NO_CLASS)} - {_NO_CLASS}
        has_other_class = len(stated_classes) == 2  # both state one, and these differ
        if is_of_place and not has_other_class:
            return expression
    return None


def _is_of_our_control(box: Mapping[str, Any]) -> bool:
    return box.get("from_name") in _CONTROLS.values()


def _is_labelled_object(box: Mapping[str, Any]) -> bool:
    return bool(box["value"].get(box["type"]) == [_BOX])


def _is_written_as_ours(box: Mapping[str, Any]) -> bool:
    return _is_labelled_object(box) or _is_of_our_control(box)


def _class_in(box: Mapping[str, Any]) -> str:
    """Return a box's label if our configuration made it: in others all boxes may have one label."""
    labels = box["value"].get(box["type"])
    if not _is_of_our_control(box) or not isinstance(labels, list):
        return _NO_CLASS
    named = [label for label in labels if label != _BOX and isinstance(label, str)]
    return named[0] if len(named) == 1 else _NO_CLASS


def _related_spans(result: list[dict[str, Any]], spans: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the places that each region is related to: {"p0b0": ["p0"], "p0": ["p0"]}."""
    related = {span_id: [span_id] for span_id in spans}  # a place has its words at itself
    relations = [part for part in result if part["type"] == "relation"]
    for relation in relations:
        from_id, to_id = _ends_of(relation)
        for region_id, span_id in ((from_id, to_id), (to_id, from_id)):  # in either direction
            if span_id not in spans or region_id in spans:  # not from a region to a place
                continue
            span_ids = related.setdefault(region_id, [])
            if span_id not in span_ids:
                span_ids.append(span_id)
    return related


def _texts_by_span(
    span_ids: list[str], region_id: str, stated: Any, spans: Mapping[str, Any], caption: str
) -> list[tuple[str, Any]]:
    """Return places with those of a region's texts that are there: [("p0", ["a cup"]), …]."""
    if len(span_ids) == 1:  # the only place, which may be _NO_PLACE, gets all texts as they are
        return [(span_ids[0], stated)]
    texts = [stated] if isinstance(stated, str) else stated or []
    by_span = []
    texts_nowhere = set(texts)
    for span_id in span_ids:
        texts_there = [text for text in texts if is_at_span(text, spans[span_id], caption)]
        by_span.append((span_id, texts_there))
        texts_nowhere.difference_update(texts_there)
    if texts_nowhere:
        raise BrokenRow(
            f"region {region_id} has several relations, and {texts_nowhere.pop()!r} is at none:"
            " leave it one"
        )
    return by_span


def _role(part: Mapping[str, Any]) -> str:
    """Return "box", "span" for a place in the caption, _ABSENT for phrases of neither, or ""."""
    type_name = part["type"]
    if type_name.startswith(("rectangle", _POLYGON)):
        return "box"
    if type_name == "textarea":
        return _ABSENT if part["from_name"] == _ABSENT else ""
    if isinstance(part.get("value", {}).get("start"), int):
        return "span"
    return ""


def _phrases(
    part: Mapping[str, Any], role: str, texts: str | list[str] | None, words_there: str | None
) -> list[str]:
    """Return a part's phrases: its texts, else the words at its place, else its labels."""
    if not role:  # a relation, or the text of a region, which comes with that
        return []
    labels = [] if role == _ABSENT else part["value"].get(part["type"], [])
    is_place_of_boxes = role == "span" and labels != [_NOTHING]
    if is_place_of_boxes:  # boxes are related to it, and each says the phrase itself
        return []
    if texts:
        return [texts] if isinstance(texts, str) else texts
    if words_there is None:  # no place in the caption
        phrases = [label for label in labels if label != _BOX]
    elif words_there:
        phrases = [words_there]
    else:  # a place from 3 to 3, say
        phrases = []
    if not phrases:
        raise BrokenRow(f"region {part['id']} has no phrase")
    return phrases


def _place_in_caption(
    part: Mapping[str, Any], caption: str, passed_over: Counter[str]
) -> list[int]:
    """Return [start, end) of a region's text in code points, at or near the stated offsets."""
    value = part["value"]
    stated = [value["start"], value["end"]]
    text = value.get("text")
    if not isinstance(text, str) or caption[slice(*stated)] == text:
        return stated
    from_units = _from_utf16_units(stated, caption)
    if caption[slice(*from_units)] == text:
        return from_units
    nearest = _place_nearest_to(stated[0], text.strip(), caption)
    if nearest is None:
        raise BrokenRow(
            f"region {part['id']}: its text {text!r:.60} isn't in the caption, and its offsets"
            f" {stated[0]} to {stated[1]} have {caption[slice(*stated)]!r:.60}"
        )
    passed_over[OFF_SPANS] += 1
    return nearest


def _place_nearest_to(offset: int, words: str, caption: str) -> list[int] | None:
    if not words:
        return None
    starts = [match.start() for match in re.finditer(re.escape(words), caption)]
    if not starts:
        return None
    nearest = min(starts, key=lambda start: abs(start - offset))
    return [nearest, nearest + len(words)]


def _from_utf16_units(offsets: list[int], text: str) -> list[int]:
    """Return offsets in code points for those in UTF-16 units, which tools of JavaScript count."""
    units = text.encode("utf-16-le", "surrogatepass")  # of 2 bytes each
    converted = []
    for offset in offsets:
        text_before = units[: 2 * offset].decode("utf-16-le", "replace")
        converted.append(len(text_before))
    return converted


def _instance(part: Mapping[str, Any], passed_over: Counter[str]) -> dict[str, Any]:
    if part.get("image_rotation"):
        raise BrokenRow(
            f"region {part['id']} is of a rotated picture (image_rotation): only upright pictures"
            " can be read"
        )
    # The score of a box that a person has drawn or changed isn't one of that box.
    is_prediction = part.get("origin", "prediction") == "prediction"
    score = part.get("score") if is_prediction else None
    if "shape" in part:  # of a polygon, see `_with_outline`
        return {**part["shape"], "score": score}
    rotation = part["value"].get("rotation") or 0
    # Label Studio turns a box about its top left corner.
    instance = turned(_box_in_pixels(part), rotation, passed_over, about_middle=False)
    return {**instance, "score": score}


def _box_in_pixels(part: Mapping[str, Any]) -> Bbox:
    """Return the box of a rectangle, before its rotation."""
    area = part["value"]
    width = part["original_width"]
    height = part["original_height"]
    edges = (
        area["x"] * width / 100,
        area["y"] * height / 100,
        (area["x"] + area["width"]) * width / 100,
        (area["y"] + area["height"]) * height / 100,
    )
    return box_of([round(edge, _DECIMALS) for edge in edges])
