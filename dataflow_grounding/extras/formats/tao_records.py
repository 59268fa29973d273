"""Records of TAO's image_referring_expression, whose boxes are in 0-1000, as records in pixels.

They are recognised by their column `kitti_bboxes` ([x1, y1, x2, y2, type] in pixels), which ours
don't have. Where no region is described yet, those boxes are the regions. A region that is one of
them, in 0-1000, gets its exact numbers back; others are converted if what 1000 stands for is
certain.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.boxes.geometry import Size, area, box_of
from dataflow_grounding.data.records import is_box, is_number, path_of
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.data.spans import clean_caption, find_spans
from dataflow_grounding.extras.formats._pictures_ahead import Pictures
from dataflow_grounding.extras.formats.base import Format, Sample, stands
from dataflow_grounding.extras.formats.export_folder import ExportFolder
from dataflow_grounding.extras.formats.label_files import LEFT_OUT
from dataflow_grounding.extras.formats.reading import broken, picture_size, read_lines

SOURCE = "image_referring_expression"
COLUMN = "kitti_bboxes"
SIDE = 1000
ASSUMED = (1920, 1080)
_OF_EXPRESSION = ("expression_id", "text", "char_span", "noun_chunk", "verified")
_STEPS = ("step0_expression_extraction", "step1_grounding")
ROUNDING = 1.0  # most that a number written in 0-1000 may be off, rounded or cut


class Tao(Format):
    """TAO's annotations.jsonl, boxes in pixels, as its image_grounding writes and reads it."""

    whole = True

    def write(self, samples: Iterator[Sample], out: ExportFolder) -> None:
        with out.lines(self.data_file) as put:
            for sample in samples:
                size = {"width": sample.size[0], "height": sample.size[1]}
                texts = {"caption": sample.record.get("caption"), "cleaned_caption": sample.caption}
                expressions = []
                for phrase in sample.phrases:
                    of, instances = phrase.expression, list[dict[str, Any]]()
                    for one, box, score in zip(
                        of["instances"], phrase.boxes, phrase.scores, strict=True
                    ):
                        instances.append(
                            {"bbox_id": _text(one.get("bbox_id")), "bbox": box, "bbox_score": score}
                        )
                    said = {key: of.get(key) for key in _OF_EXPRESSION} | {
                        "expression_id": _text(of["expression_id"])
                    }
                    expressions.append({**said, "instances": instances})
                named = {
                    "image_id": _text(sample.record.get("image_id")),
                    "image_path": sample.file_name,
                }
                empty = {"background": True} if sample.record.get("background") is True else {}
                source = {"source": "image_grounding", "pipeline_steps": [*_STEPS]}
                put(
                    {
                        **named,
                        **empty,
                        **size,
                        **texts,
                        "regions": [],
                        "expressions": expressions,
                        **source,
                    }
                )

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        pictures = Pictures((image_root,))
        lines = read_lines(path, self.data_file)
        for where, row in pictures.ahead(lines, lambda line: is_tao(line[1]) and path_of(line[1])):
            with broken(where):
                if is_tao(row):
                    row, _ = from_tao(row, picture_size(pictures, row["image_path"], where))
                elif row.get("source") == SOURCE:
                    raise BrokenRow(
                        f"without {COLUMN!r}, boxes of {SOURCE} may be pixels or parts of {SIDE}"
                    )
                given, caption = row["expressions"], row.get("cleaned_caption")
                if not all(
                    stands(one["text"], one["char_span"], caption)
                    for one in given
                    if one.get("char_span")
                ):
                    row = with_status(row)  # TAO takes spans from its model unchecked
            yield row


def _text(own: Any) -> str | None:
    return None if own is None else str(own)  # a column has one type


def is_tao(row: Mapping[str, Any]) -> bool:
    """Whether a row is a record of TAO's."""
    return row.get("source") in (None, SOURCE) and isinstance(row.get(COLUMN), list)


Exact: TypeAlias = tuple[list[float], str]  # a label's box in pixels, and its type


class Regions(NamedTuple):
    """Regions in pixels and as TAO wrote them, the size that its 1000 stands for, and whether that
    is certain.
    """

    regions: list[dict[str, Any]]
    written: list[list[float]]
    size: tuple[Any, Any]
    sure: bool


def refuse_taos_results(results_dir: str, files: Sequence[str]) -> None:
    """Raises InputError if one of these files of `results_dir` is TAO's: a run would write over
    what was paid for.
    """
    for path in filter(os.path.exists, files):
        first = next((row.data for row in read_rows(path) if row.data is not None), {})
        if is_tao(first):
            last = os.path.join(results_dir, "annotations.jsonl")
            given = f"data.input_annotations_jsonl={last if os.path.exists(last) else path}"
            why = f"{results_dir} holds TAO's own results"
            raise InputError(
                f"{why}: to go on from them, choose another results_dir and give {given}"
            )


def from_tao(row: Mapping[str, Any], size: Size) -> tuple[dict[str, Any], list[list[float]]]:
    """The record in pixels of an image of `size` (width, height), and the boxes left out of it,
    which have no area.

    Raises:
        BrokenRow: It can't be told for certain what a number means.
    """
    exact, described = [_kitti(item) for item in row[COLUMN]], row.get("regions")
    # by what TAO may have converted
    stated: tuple[Any, Any] = (row.get("width"), row.get("height"))
    sizes = [size, stated if all(is_number(n) and n > 0 for n in stated) else ASSUMED]
    found, without_area = (
        (_described(described, exact, sizes), []) if described else _labelled(exact, sizes)
    )
    record = {name: value for name, value in row.items() if name != COLUMN}
    record |= {"width": size[0], "height": size[1], "regions": found.regions}
    if isinstance(caption := row.get("caption"), str) and caption.strip():
        record.setdefault("cleaned_caption", clean_caption(caption))
    if row.get("expressions"):
        record["expressions"] = [
            _expression(expression, found) for expression in row["expressions"]
        ]
    return record, without_area


def _described(given: Sequence[Any], exact: list[Exact], sizes: list[tuple[Any, Any]]) -> Regions:
    """The regions that TAO's model described, in 0-1000, by the size by which most match an exact
    box.
    """
    written = [_four(region, "a region") for region in given]
    tried = [(size, _matches(written, exact, size)) for size in sizes]
    # the first of equals
    best, matches = max(tried, key=lambda one: sum(match is not None for match in one[1]))
    if (exact or sizes[0] != sizes[1]) and all(match is None for match in matches):
        raise BrokenRow(
            f"no region matches one of its {COLUMN} in 0-{SIDE}: can't tell which coordinates they"
            " are in"
        )
    regions = []
    for region, box, match in zip(given, written, matches, strict=True):
        bbox, kind = exact[match] if match is not None else (_converted(box, best), "")
        kept = {name: value for name, value in region.items() if name != "bbox_2d"}
        regions.append({**kept, "bbox": list(bbox), "type": region.get("type") or kind})
    return Regions(regions, written, best, best == sizes[0])


def _labelled(
    exact: list[Exact], sizes: list[tuple[Any, Any]]
) -> tuple[Regions, list[list[float]]]:
    """The boxes of the labels, where no region is described yet, and those that are left out,
    without an area.
    """
    labelled: list[dict[str, Any]] = [
        {"bbox": box, "type": kind} for box, kind in exact if kind.lower() != LEFT_OUT
    ]
    regions = [one for one in labelled if area(box_of(one["bbox"])) > 0]
    written = [_in_1000(one["bbox"], sizes[0]) for one in regions]
    without_area = [one["bbox"] for one in labelled if area(box_of(one["bbox"])) <= 0]
    return Regions(regions, written, sizes[0], sizes[0] == sizes[1]), without_area


def with_status(row: Mapping[str, Any]) -> dict[str, Any]:
    """The record, its expressions completed where another system made them: a status, and spans
    that were looked up.
    """
    given = row.get("expressions")
    expressions = given if isinstance(given, list) else []
    readable = all(
        isinstance(item, Mapping) and isinstance(item.get("text"), str) for item in expressions
    )
    if not readable or all("status" in item for item in expressions):
        return dict(row)
    caption = row.get("cleaned_caption")
    spans = find_spans(
        [item["text"] for item in expressions], caption if isinstance(caption, str) else ""
    )
    completed = [
        {
            "status": "grounded" if item.get("instances") else "none",
            **item,
            "char_span": list(span) if span else None,
        }
        for item, span in zip(expressions, spans, strict=True)
    ]
    return {**row, "expressions": completed}


def _expression(expression: Any, found: Regions) -> Any:
    if not isinstance(expression, Mapping):
        return expression
    instances = []
    for instance in expression.get("instances") or []:
        box = _four(instance, "an instance")
        near = [n for n, other in enumerate(found.written) if _close(box, other)]
        if not near and not found.sure:
            why = "is not a region, and the record's size is not the image's"
            raise BrokenRow(f"the instance {box} {why}: not converted")
        bbox = found.regions[near[0]]["bbox"] if near else _converted(box, found.size)
        instances.append(
            {**instance, "bbox": list(bbox), **({"region_id": near[0] + 1} if near else {})}
        )
    return {**expression, "instances": instances}


def _kitti(item: Any) -> Exact:
    numbers = list(item[:4]) if isinstance(item, list) else []
    if not is_box(numbers):
        raise BrokenRow(f"column {COLUMN!r} should have lists [x1, y1, x2, y2, type]")
    return numbers, str(item[4]) if len(item) > 4 else ""


def _four(item: Any, what: str) -> list[float]:
    bbox: list[float] = item["bbox"] if isinstance(item, Mapping) and "bbox" in item else []
    if not is_box(bbox):
        raise BrokenRow(f"{what} needs 'bbox': [x1, y1, x2, y2]")
    return bbox


def _matches(
    written: list[list[float]], exact: list[Exact], size: Sequence[Any]
) -> list[int | None]:
    """For each written box the place of the exact one that it is, each taken once."""
    there, found = [_in_1000(bbox, size) for bbox, _ in exact], list[int | None]()
    for box in written:
        found.append(
            next(
                (n for n, other in enumerate(there) if _close(box, other) and n not in found), None
            )
        )
    return found


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) <= ROUNDING for a, b in zip(one, other, strict=True))


def _in_1000(bbox: Sequence[float], size: Sequence[Any]) -> list[float]:
    return [value * SIDE / size[i % 2] for i, value in enumerate(bbox)]


def _converted(box: Sequence[float], size: Sequence[Any]) -> list[float]:
    return [round(value * size[i % 2] / SIDE, 4) for i, value in enumerate(box)]
