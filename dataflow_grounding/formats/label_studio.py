"""Label Studio: tasks with predictions out, with annotations in.

A task has `data` (the picture's address, the caption) and lists of annotations and predictions. The
`result` of each is a list of parts: `{"id": "p0b0", "type": "rectanglelabels", "value": {…}}` is a
box, and a part `textarea` with the same id is its text. The parts of one id are a region. A part
`relation` has the ids of two regions.

An import keeps the parts as items. When they go back, a `Mark` says which box or phrase an item is
now (see imported.py).

`labels.xml` is the labelling configuration. A box is a region, in percents of the sides. Its label
is the phrase's class, or `object` where it states none. It has its phrase as a text, unless the
label says it. This holds whoever wrote the configuration: a label is a class, a text a phrase
(HumanSignal/label-studio-converter issue 226). Where a phrase is in the caption is found by its
words; places and relations that a user has made go back as they came.

A rotated box is turned about its top left corner, in pixels
(label_studio_sdk/converter/utils.py): percents of two different sides would skew it.

Sources: labelstud.io/guide/{task_format,predictions}; label-studio's web/libs/editor/src:
utils/selection-tools.js, mixins/AreaMixin.js (an id ends at `#`).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import quoteattr

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.paths import joined, kind_of
from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.data.bad_entries import SKIPPED, BadEntries
from dataflow_grounding.data.classes import class_key
from dataflow_grounding.data.records import JsonObject, Update, has_id
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Phrase, Sample
from dataflow_grounding.formats.imported import (
    COLUMN,
    Mark,
    ReturningFormat,
    Source,
    column,
    with_item_number,
)
from dataflow_grounding.formats.reading import (
    KeyedExpression,
    entry_errors,
    read_lines,
    unite,
)
from dataflow_grounding.formats.rotated import rotated_box_of, turned
from dataflow_grounding.formats.xml_text import safe_for_xml

# labels and names of controls, as in label_studio.xml
_BOX = "object"  # label of a box whose phrase states no class
_CONTROLS = {"rectangle": "box", "polygon": "polygon"}
_ABSENT = "absent"  # control with the phrases that have no boxes
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
_DECIMALS = 6  # of a pixel
_UPLOAD = re.compile(r"upload/\d+/(?:[0-9a-f]{8}-)?([^/]+)")


@dataclass
class LabelStudio(ReturningFormat):
    """Label Studio's JSON; a task's last annotation is read, or without any its last prediction."""

    image: str = "image"  # what these are called in a task's data
    caption: str = "caption"
    class_list: Sequence[str] = ()  # in the order that their labels get

    shows_upright = True

    def __post_init__(self) -> None:
        # by the name of its picture, how many tasks there are of an upload
        self._tasks_of_name: Counter[str] = Counter()
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
                    label = self._label_of(phrase)
                    if phrase.boxes or label != _BOX:  # a class is a label, also of what is absent
                        used_labels.add(label)
                source = self.source_of(sample)
                if source.own:  # it came from Label Studio
                    put(self._task_back(source))
                else:
                    put({"data": self._data(sample), "predictions": [self._prediction(sample)]})
        with out.file("labels.xml") as file:
            file.write(self._configuration(used_labels, has_polygons))

    def _label_of(self, phrase: Phrase) -> str:
        """Return the label of the phrase's class; keep a new class for the configuration."""
        name = safe_for_xml(phrase.expression.stated_class)
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

    def _task_back(self, source: Source) -> JsonObject:
        """Return the task as it was, with the annotation that was read as it is now."""
        list_name, number = source.own["place"]  # ["annotations", 2], see _imported_column
        task = {**source.own["task"]}
        name_at_import = source.own.get("picture") or _path_of(task["data"][self.image])
        has_other_name = source.sample.file_name != name_at_import
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
        for number, item in enumerate(items):
            region = item.get("id")
            ends = {item.get("from_id"), item.get("to_id")}  # of a relation; None in other items
            if region in gone_regions or ends & gone_regions:
                source.gone.add(number)
            elif region in mark_of_region:
                source.marks[number] = mark_of_region[region]
        return source

    def item_back(self, item: JsonObject, mark: Mark, source: Source) -> JsonObject:
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

    def new_items(self, mark: Mark, source: Source) -> Iterator[JsonObject]:
        """Yield the regions of a new box or phrase, in the form of the task's first box or ours."""
        span_id = self._free_span_id()  # p0, p1 and so on, of which a box's id is made: p0b0
        first_box = next(filter(_is_box, source.items), None)
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
    ) -> Iterator[JsonObject]:
        if mark.box is None:
            yield _absent_region(f"{span_id}b0", [mark.phrase.text])
            return
        phrase = mark.phrase.with_boxes([mark.number])  # its other boxes have regions of their own
        yield from _box_regions(span_id, phrase, source.sample, label)

    def _prediction(self, sample: Sample) -> JsonObject:
        result: list[JsonObject] = []
        absent = []  # texts of phrases that have no boxes
        scores = []
        for number, phrase in enumerate(sample.phrases):
            result += _box_regions(f"p{number}", phrase, sample, self._label_of(phrase))
            scores += [score for score in phrase.scores if score is not None]
            if not phrase.boxes:
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

    def _data(self, sample: Sample) -> JsonObject:
        name = sample.file_name
        return {
            self.image: name if "://" in name else f"/data/local-files/?d={quote(name)}",
            self.caption: sample.caption,
            "image_id": sample.record.get("image_id"),
        }

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield a record for each task with an annotation or a prediction; others are counted."""
        for where, task in read_lines(path, self.data_file, self.bad):
            with entry_errors(where, self.bad):
                record = self._record_of_task(task, where)
                if record is not None:
                    self._find_upload(record, path, image_root)
                    yield record

    def _find_upload(self, record: Update, path: str, image_root: str) -> None:
        """Take the picture that is called as an upload, which only Label Studio's server has.

        It calls its copy `upload/1/1a2b3c4d-a.png`. No other task may have that name.
        """
        stated = record["image_path"]
        upload = _UPLOAD.fullmatch(stated)
        if upload is None or kind_of(joined(image_root, stated)):
            return
        name = upload[1]
        if not kind_of(joined(image_root, name)):
            return
        if not self._tasks_of_name:
            for _, task in read_lines(path, self.data_file, BadEntries()):
                address = task.get("data", {}).get(self.image)
                other = _UPLOAD.fullmatch(_path_of(str(address)))
                self._tasks_of_name[other[1] if other else str(address)] += 1
        if self._tasks_of_name[name] == 1:
            record["image_path"] = name
            record[COLUMN] = {**record[COLUMN], "picture": name}
            self.passed_over["uploads, of which the picture with their name is taken"] += 1

    def _record_of_task(self, task: JsonObject, where: str) -> Update | None:
        """Return a task's record; None, and a count, without an annotation or a prediction."""
        if "data" not in task:
            raise BrokenRow("no 'data' in it: export from Label Studio as JSON, not as JSON-MIN")
        if "completions" in task and "annotations" not in task:
            raise BrokenRow("its 'completions' are of before Label Studio 1.0: export it again")
        annotations = _written_out(task.get("annotations"))
        latest = _latest(annotations)
        kind = "annotations"
        if latest is None:  # a person's annotation wins over a model's prediction
            kind = "predictions"
            latest = _latest(_written_out(task.get("predictions")))
        self._count_passed_over(annotations, latest)
        if latest is None:
            return None
        record = self._record(task["data"], latest, where)
        return {**record, **_imported_column(self.name, task, kind, latest)}

    def _count_passed_over(self, annotations: list[Any], latest: JsonObject | None) -> None:
        cancelled_count = sum(bool(each.get("was_cancelled")) for each in annotations)
        valid_count = len(annotations) - cancelled_count
        count_before_last = max(0, valid_count - 1)  # a task may have none
        # Counts of 0 are added, too: reasons are reported in the order of their first mention here.
        self.passed_over.add_all(
            {
                "cancelled annotations": cancelled_count,
                "annotations before a task's last one": count_before_last,
                "tasks without an annotation": int(latest is None),
            }
        )

    def _record(self, data: JsonObject, annotation: JsonObject, where: str) -> Update:
        caption = data.get(self.caption) or ""
        record: Update = {"image_path": _path_of(data[self.image]), "caption": caption}
        result = annotation["result"]
        if any(part.get("item_index") for part in result):
            raise BrokenRow("a task of several pages: only tasks of one picture can be read")
        kinds = [str(part.get("type")) for part in result]
        others = [kind for kind in kinds if kind.startswith(_OTHER_SHAPES)]
        for kind in others:
            self.passed_over[f"regions {kind!r:.40}, kept for Label Studio"] += 1
        record["expressions"] = _expressions(result, self.passed_over, where)
        if others:  # something is there, which a detector would learn as background
            record[SKIPPED] = len(others)
            if not record["expressions"]:
                record["background"] = False
        for part in result:
            if _is_box(part):  # each box states the picture's size, which is the same in all
                record["width"] = part["original_width"]
                record["height"] = part["original_height"]
        if has_id(data.get("image_id")):
            record["image_id"] = data["image_id"]
        annotator = _annotator_of(annotation)
        if annotator:
            record["reviewed_by"] = annotator
        return record


def _annotator_of(annotation: JsonObject) -> str:
    """Return an id, or the email where the export writes out a user; "" for a prediction."""
    annotator = annotation.get("completed_by")
    if isinstance(annotator, dict):
        annotator = annotator.get("email") or annotator.get("id")
    return "" if annotator is None else str(annotator)


def _imported_column(
    format: str,
    task: JsonObject,
    list_name: str,
    latest: JsonObject,
) -> JsonObject:
    """Return the column; `place` in it says where the annotation was: ["annotations", 2]."""
    number = next(index for index, each in enumerate(task[list_name]) if each is latest)
    annotations = [*task[list_name]]
    annotations[number] = {**latest, "result": []}
    place = [list_name, number]
    return column(format, latest["result"], task={**task, list_name: annotations}, place=place)


def _texts_of(own_id: Any, source: Source) -> list[JsonObject]:
    texts = [item for item in source.items if item["type"] == "textarea"]
    return [item for item in texts if item.get("id") == own_id]


def _regions_like(
    first_box: JsonObject, own_id: str, mark: Mark, source: Source
) -> Iterator[JsonObject]:
    """Yield a new box as the task's first one is: with a text if that has one, else a label."""
    assert mark.box is not None
    phrase = mark.phrase
    texts = _texts_of(first_box["id"], source)
    if texts:  # the text says the phrase, and the label is the same for all such boxes
        labels = first_box["value"].get(first_box["type"])
    else:
        labels = [phrase.expression.stated_class or phrase.text]
    of_box = box_facts(own_id, source.sample.size)
    kind, area = _kind_and_area(mark.box, mark.outline, source.sample.size)
    # The first box may be a rectangle, and the new one a polygon, of another control.
    names = {**_names_of_control(first_box), **_control_of(kind, source)}
    yield {**of_box, **names, "value": {**area, names["type"]: labels}}
    if texts:
        text = {**area, "text": [phrase.text]}
        yield {**of_box, **_names_of_control(texts[0]), "value": text}


def _names_of_control(part: JsonObject) -> JsonObject:
    return {key: part[key] for key in ("from_name", "to_name", "type") if key in part}


def _path_of(address: str) -> str:
    """Return PATH of `/data/local-files/?d=PATH`, a local file, or of `/data/PATH`, an upload."""
    parts = urlsplit(address)
    if parts.path.rstrip("/").endswith("/data/local-files"):
        paths = parse_qs(parts.query).get("d")
        if paths:
            return paths[0]
    return address.removeprefix("/data/")


def _absent_region(own_id: str, texts: list[str]) -> JsonObject:
    region = {"id": own_id, "from_name": _ABSENT, "to_name": "image", "type": "textarea"}
    return {**region, "value": {"text": texts}}


def _box_regions(span_id: str, phrase: Phrase, sample: Sample, label: str) -> Iterator[JsonObject]:
    """Yield each box's part, and its text unless the label says it."""
    # Where the label is the phrase, whoever changes it changes the phrase.
    needs_text = label != phrase.text or label == _BOX
    for number, box in enumerate(phrase.boxes):
        kind, area = _kind_and_area(box, phrase.outline(number), sample.size)
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


def _has_polygon(sample: Sample) -> bool:
    for phrase in sample.phrases:
        for number in range(len(phrase.boxes)):
            outline = phrase.outline(number)
            # A rotated box has an outline, too, and is written as a rectangle.
            if outline is not None and rotated_box_of(outline) is None:
                return True
    return False


def _with_area(item: JsonObject, mark: Mark, source: Source) -> JsonObject:
    assert mark.box is not None
    kind, area = _kind_and_area(mark.box, mark.outline, source.sample.size)
    other_keys = {key: each for key, each in item["value"].items() if key not in _AREA_KEYS}
    has_area = len(other_keys) < len(item["value"])
    if not has_area:  # such as a choice
        return item
    is_text = not _is_box(item)  # a region's text repeats the area of its box
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


def _with_words(item: JsonObject, mark: Mark, source: Source) -> JsonObject:
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
) -> tuple[str, JsonObject]:
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


def _outline_in(value: JsonObject, size: Size) -> list[float]:
    """Return [[25, 50], …] in percents as [160, 240, …] in pixels, for 640 x 480."""
    width, height = size
    outline = []
    for x, y in value["points"]:
        outline.append(round(x * width / 100, _DECIMALS))
        outline.append(round(y * height / 100, _DECIMALS))
    return outline


def area_of(box: Bbox, size: Size) -> dict[str, float]:
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


def box_facts(own_id: str, size: Size) -> JsonObject:
    """Return what each part of a box's region has; `size` is the picture's."""
    return {
        "id": own_id,
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
    }


def _written_out(annotations: Any) -> list[JsonObject]:
    """Return the annotations; an export of tasks alone has numbers there (issue 9709)."""
    if not isinstance(annotations, list):
        return []
    return [each for each in annotations if isinstance(each, dict)]


def _latest(annotations: list[JsonObject]) -> JsonObject | None:
    valid = [each for each in annotations if not each.get("was_cancelled")]
    if not valid:
        return None
    # sorted() keeps the order of equal times, so that the last of them is the list's last.
    return sorted(valid, key=_time_of)[-1]


def _time_of(annotation: JsonObject) -> str:
    """Return a text such as "2024-05-01T12:00:00.000000Z", which sorts as times do; "" is first."""
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _expressions(
    result: Sequence[JsonObject], passed_over: Counter[str], where: str
) -> list[dict[str, Any]]:
    """Return the expressions of all regions; those of one text and class share one."""
    keyed: list[KeyedExpression] = []
    for number, part in enumerate(result):
        if _is_box(part):
            instance = _instance(part, passed_over, where)
            for text, class_name in _phrases_of_box(part, result):
                expression = {"text": text, "instances": [with_item_number(instance, number, text)]}
                if class_name:
                    expression["class"] = class_name
                keyed.append(((text, class_name), expression))
        elif part["type"] == "textarea" and part.get("from_name") == _ABSENT:
            # A phrase without boxes remembers its region itself, as a box does above.
            for text in _texts_in(part):
                absent = with_item_number({"text": text, "instances": []}, number, text)
                keyed.append(((text, ""), absent))
    return _with_absent_joined(unite(keyed))


def _with_absent_joined(expressions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out an absent phrase of which somebody has drawn a box."""
    boxed = {expression["text"] for expression in expressions if expression["instances"]}
    return [one for one in expressions if one["instances"] or one["text"] not in boxed]


def _phrases_of_box(box: JsonObject, result: Sequence[JsonObject]) -> list[tuple[str, str]]:
    """Return a box's phrases, each with its class, which may be ""."""
    own_id = box.get("id")
    others = [part for part in result if own_id is not None and part.get("id") == own_id]
    labels = _labels_in(box)
    texts = []
    for part in others:
        if part["type"] == "textarea":
            texts += _texts_in(part)
    if not labels:
        # As in the template for OCR: the label is a part of its own, and the text is what is
        # written there.
        for part in others:
            if part["type"] == "labels":
                labels += _labels_in(part)
        texts = [] if labels else texts
    classes = [label for label in labels if label != _BOX]
    if texts:
        class_name = classes[0] if len(classes) == 1 else ""
        return [(text, class_name) for text in texts]
    if not classes:
        raise BrokenRow(f"region {own_id} has no phrase")
    return [(label, label) for label in classes]


def _labels_in(part: JsonObject) -> list[str]:
    labels = part["value"].get(part["type"], [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise BrokenRow(f"region {part.get('id')}: its labels should be a list of texts")
    return labels


def _texts_in(part: JsonObject) -> list[str]:
    texts = part["value"]["text"]
    return [texts] if isinstance(texts, str) else list(texts)


def _is_of_our_control(box: JsonObject) -> bool:
    return box.get("from_name") in _CONTROLS.values()


def _is_labelled_object(box: JsonObject) -> bool:
    return bool(box["value"].get(box["type"]) == [_BOX])


def _is_written_as_ours(box: JsonObject) -> bool:
    return _is_labelled_object(box) or _is_of_our_control(box)


def _is_box(part: JsonObject) -> bool:
    return str(part["type"]).startswith(("rectangle", _POLYGON))


def _instance(part: JsonObject, passed_over: Counter[str], where: str) -> dict[str, Any]:
    if part.get("image_rotation"):
        raise BrokenRow(
            f"region {part['id']} is of a rotated picture (image_rotation): only upright pictures"
            " can be read"
        )
    # The score of a box that a person has drawn or changed isn't one of that box.
    is_prediction = part.get("origin", "prediction") == "prediction"
    score = part.get("score") if is_prediction else None
    if part["type"].startswith(_POLYGON):
        with entry_errors(f"{where}, region {part.get('id')}"):
            size = (part["original_width"], part["original_height"])
            outline = outlines.checked(_outline_in(part["value"], size), size)
        return {"bbox": [*outlines.bounds(outline)], outlines.KEY: outline, "score": score}
    rotation = part["value"].get("rotation") or 0
    # Label Studio turns a box about its top left corner.
    instance = turned(_box_in_pixels(part), rotation, passed_over, about_middle=False)
    return {**instance, "score": score}


def _box_in_pixels(part: JsonObject) -> Bbox:
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
