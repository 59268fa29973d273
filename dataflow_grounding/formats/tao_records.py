"""TAO's records: the format `tao`, and its image_referring_expression's records in pixels.

Records of image_referring_expression have boxes in 0-1000 of the picture's sides. They are
recognised by their column `kitti_bboxes` ([x1, y1, x2, y2, type] in pixels, here called labels),
which our records don't have. If a record has no regions yet, the labels become its regions. A
region that is a label in 0-1000 gets the label's exact pixels; other boxes are converted if it is
certain which size 1000 means.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Size, area, box_of
from dataflow_grounding.data.records import JsonObject, Update, is_box, is_number
from dataflow_grounding.english.spans import clean_caption, find_spans
from dataflow_grounding.formats.export_folder import ExportFolder
from dataflow_grounding.formats.format import Format, Phrase, Sample
from dataflow_grounding.formats.label_files import LEFT_OUT, Labelled
from dataflow_grounding.formats.reading import entry_errors, picture_header, read_lines

SOURCE = "image_referring_expression"  # the `source` of the records that are converted
COLUMN = "kitti_bboxes"  # by which these are recognised
SIDE = 1000  # what TAO's boxes call the whole of a side
ASSUMED = (1920, 1080)  # the size that TAO takes if it knows none
_STEPS = ["step0_expression_extraction", "step1_grounding"]  # TAO's names of image_grounding's
_DECIMALS = 4  # of a pixel, in boxes that are converted
ROUNDING = 1.0  # most that a number written in 0-1000 may be off, rounded or cut


class Tao(Format):
    """TAO's annotations.jsonl, boxes in pixels, as its image_grounding writes and reads it."""

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        with out.lines(self.data_file) as put:
            for sample in samples:
                put(_line(sample))

    def read(self, path: str, image_root: str) -> Iterator[Update]:
        """Yield the records in pixels; those of image_referring_expression are converted."""
        for where, row in read_lines(path, self.data_file, self.bad):
            with entry_errors(where, self.bad):  # at an error the line is left out
                if is_tao(row):
                    header = picture_header(image_root, row["image_path"], where)
                    row, _ = from_tao(row, header.size)
                elif row.get("source") == SOURCE:  # without the column by which boxes are converted
                    raise BrokenRow(
                        f"without {COLUMN!r}, boxes of {SOURCE} may be pixels or parts of {SIDE}"
                    )
                yield row


def _line(sample: Sample) -> Update:
    line: Update = {
        "image_id": _as_text(sample.record.get("image_id")),
        "image_path": sample.file_name,
    }
    if sample.record.get("background") is True:
        line["background"] = True  # a column of ours
    return {
        **line,
        "width": sample.size[0],
        "height": sample.size[1],
        "caption": sample.record.get("caption"),
        "cleaned_caption": sample.caption,
        "regions": [],
        "expressions": [_tao_expression(phrase) for phrase in sample.phrases],
        "source": "image_grounding",
        "pipeline_steps": _STEPS,
    }


def _tao_expression(phrase: Phrase) -> JsonObject:
    expression = phrase.expression
    instances = []
    boxes = zip(expression.instances, phrase.boxes, phrase.scores, strict=True)
    for instance, box, score in boxes:
        instances.append({"bbox_id": instance.bbox_id, "bbox": box, "bbox_score": score})
    return {
        "expression_id": expression.expression_id,
        "text": expression.text,
        "char_span": expression.char_span,
        "noun_chunk": expression.noun_chunk,
        "verified": expression.verified,
        "instances": instances,
    }


def _as_text(own_id: Any) -> str | None:
    return None if own_id is None else str(own_id)


def is_tao(row: JsonObject) -> bool:
    """Whether a row is a record of TAO's image_referring_expression, with boxes in 0-1000."""
    return row.get("source") in (None, SOURCE) and isinstance(row.get(COLUMN), list)


class Regions(NamedTuple):
    """A record's regions in pixels, and what its numbers in 0-1000 mean."""

    regions: Sequence[JsonObject]
    in_1000: list[list[float]]
    """The box of each region as TAO wrote it, or would have."""
    size: tuple[Any, Any]
    """The width and height in pixels that TAO's 1000 means."""
    is_size_certain: bool
    """Whether boxes that aren't a region's may be converted by `size`."""


def from_tao(row: JsonObject, size: Size) -> tuple[dict[str, Any], list[list[float]]]:
    """Return a copy of the record in pixels, and the boxes left out of it, which have no area.

    `size` is the upright image's. Raises BrokenRow where the meaning of a number isn't certain.
    """
    labels = [_as_label(item) for item in row[COLUMN]]
    described = row.get("regions")  # those that a step of TAO's has described already
    # TAO may have converted pixels to parts of 1000 by the size that the record states, too.
    stated: tuple[Any, Any] = (row.get("width"), row.get("height"))
    if not all(is_number(side) and side > 0 for side in stated):
        stated = ASSUMED
    without_area: list[list[float]] = []
    if described:
        regions = _described_regions(described, labels, size, stated)
    else:
        labels = [label for label in labels if label.type.lower() != LEFT_OUT]
        without_area = [label.bbox for label in labels if area(box_of(label.bbox)) <= 0]
        regions = _labelled_regions(labels, size, stated)
    record = {name: value for name, value in row.items() if name != COLUMN}
    record |= {"width": size[0], "height": size[1], "regions": regions.regions}
    caption = row.get("caption")
    if isinstance(caption, str) and caption.strip():
        record.setdefault("cleaned_caption", clean_caption(caption))
    if row.get("expressions"):
        record["expressions"] = [
            _expression_in_pixels(expression, regions) for expression in row["expressions"]
        ]
    return record, without_area


def _described_regions(
    described: Sequence[Any], labels: list[Labelled], size: Size, stated: tuple[Any, Any]
) -> Regions:
    """Convert regions; one that matches a label gets its exact box, and its type if it has none.

    1000 means the sides by which more regions match a label, by default those of the image. Raises
    BrokenRow where that isn't certain.
    """
    in_1000 = [_box_in(region, "a region") for region in described]
    matching = _label_of_each(in_1000, labels, size)
    by_stated = _label_of_each(in_1000, labels, stated)
    size_of_1000: tuple[Any, Any] = size
    if by_stated.count(None) < matching.count(None):
        matching, size_of_1000 = by_stated, stated
    # A match also shows that the numbers are in 0-1000 at all, and not in pixels.
    needs_match = bool(labels) or size != stated
    if needs_match and matching.count(None) == len(matching):
        raise BrokenRow(
            f"no region matches one of its {COLUMN} in 0-{SIDE}: can't tell which coordinates they"
            " are in"
        )
    regions = []
    for region, box, label in zip(described, in_1000, matching, strict=True):
        bbox = _in_pixels(box, size_of_1000) if label is None else list(label.bbox)
        region_type = region.get("type") or ("" if label is None else label.type)
        others = {name: value for name, value in region.items() if name != "bbox_2d"}
        regions.append({**others, "bbox": bbox, "type": region_type})
    # Where the regions are in another size than the image's, nothing tells which of the two a box
    # is in that is none of them.
    return Regions(regions, in_1000, size_of_1000, is_size_certain=size_of_1000 == size)


def _labelled_regions(labels: list[Labelled], size: Size, stated: tuple[Any, Any]) -> Regions:
    regions: list[JsonObject] = []
    for label in labels:
        if area(box_of(label.bbox)) > 0:
            regions.append({"bbox": label.bbox, "type": label.type})
    # Labels are in pixels of the image, whichever size the record states.
    in_1000 = [_exactly_in_1000(region["bbox"], size) for region in regions]
    # TAO may have converted other boxes by either size, and no region of its own tells which.
    return Regions(regions, in_1000, size, is_size_certain=size == stated)


def with_status(row: JsonObject) -> Update:
    """Return a copy of the record whose expressions all have a status, if they can be read.

    If one has none, another system made them: all spans of the record are looked up again.
    """
    expressions = row.get("expressions")
    if not isinstance(expressions, list):
        expressions = []
    for expression in expressions:
        if not isinstance(expression, Mapping) or not isinstance(expression.get("text"), str):
            return dict(row)
    if all("status" in expression for expression in expressions):
        return dict(row)
    caption = row.get("cleaned_caption")
    texts = [expression["text"] for expression in expressions]
    spans = find_spans(texts, caption if isinstance(caption, str) else "")
    completed = []
    for expression, span in zip(expressions, spans, strict=True):
        status = "grounded" if expression.get("instances") else "none"
        char_span = list(span) if span else None
        # Its own status, if it has one, stays.
        completed.append({"status": status, **expression, "char_span": char_span})
    return {**row, "expressions": completed}


def _expression_in_pixels(expression: Any, regions: Regions) -> Any:
    if not isinstance(expression, Mapping):  # damaged: it stays as it is
        return expression
    # A box that is one of the regions in 0-1000 gets the exact numbers of that region.
    instances = []
    for instance in expression.get("instances") or []:
        box = _box_in(instance, "an instance")
        index = _index_of_close(box, regions.in_1000)
        if index is not None:
            bbox = regions.regions[index]["bbox"]
            region_id = index + 1  # they count from 1
            instances.append({**instance, "bbox": list(bbox), "region_id": region_id})
        elif regions.is_size_certain:
            instances.append({**instance, "bbox": _in_pixels(box, regions.size)})
        else:
            why = "is not a region, and the record's size is not the image's"
            raise BrokenRow(f"the instance {box} {why}: not converted")
    return {**expression, "instances": instances}


def _as_label(item: Any) -> Labelled:
    numbers = list(item[:4]) if isinstance(item, list) else []
    if not is_box(numbers):
        raise BrokenRow(f"column {COLUMN!r} should have lists [x1, y1, x2, y2, type]")
    return Labelled(str(item[4]) if len(item) > 4 else "", numbers)


def _box_in(item: Any, what: str) -> list[float]:
    bbox: list[float] = item["bbox"] if isinstance(item, Mapping) and "bbox" in item else []
    if not is_box(bbox):
        raise BrokenRow(f"{what} needs 'bbox': [x1, y1, x2, y2]")
    return bbox


def _label_of_each(
    boxes: list[list[float]], labels: list[Labelled], size: Sequence[Any]
) -> list[Labelled | None]:
    """Return for each box in 0-1000 the first label that is close enough and free."""
    free = [(_exactly_in_1000(label.bbox, size), label) for label in labels]
    matching: list[Labelled | None] = []
    for box in boxes:
        index = _index_of_close(box, [label_box for label_box, _ in free])
        matching.append(None if index is None else free.pop(index)[1])
    return matching


def _index_of_close(box: Sequence[float], boxes: list[list[float]]) -> int | None:
    for index, another in enumerate(boxes):
        if _are_close(box, another):
            return index
    return None


def _are_close(box: Sequence[float], another: Sequence[float]) -> bool:
    return all(abs(a - b) <= ROUNDING for a, b in zip(box, another, strict=True))


def _exactly_in_1000(box: Sequence[float], size: Sequence[Any]) -> list[float]:
    return [value * SIDE / size[i % 2] for i, value in enumerate(box)]


def _in_pixels(box: Sequence[float], size: Sequence[Any]) -> list[float]:
    return [round(value * size[i % 2] / SIDE, _DECIMALS) for i, value in enumerate(box)]
